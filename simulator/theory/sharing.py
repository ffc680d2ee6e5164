"""What ranks send that share a model: sharded data, tensor and context parallelism. Bytes per rank and step."""

from __future__ import annotations

from .collectives import all_reduce_bytes


def sharded_bytes(stage: int, ranks: int, parameter_bytes: float) -> float:
    """(n-1)/n times 2Ψ for ZeRO stages 1 and 2, 3Ψ for stage 3 (Rajbhandari et al. 2020, arXiv:1910.02054, section 7).

    >>> sharded_bytes(3, 4, 100.0), sharded_bytes(1, 4, 100.0)
    (225.0, 150.0)
    """
    return (3 if stage == 3 else 2) * (ranks - 1) / ranks * parameter_bytes


def tensor_parallel_bytes(ways: int, layers: int, activation: float, scores: float) -> float:
    """Of a GPT: four all-reduces of the activations per layer, two around the ends, one of the scores of the letters.

    ``activation`` is batch × sequence × hidden, ``scores`` batch × sequence × vocabulary, both in bytes. A layer's
    attention and its perceptron each need one forward and one backward (Shoeybi et al. 2019, arXiv:1909.08053); so do
    the split embedding forward and the split output backward.

    >>> tensor_parallel_bytes(2, 1, 10.0, 0.0)
    60.0
    """
    return (4 * layers + 2) * all_reduce_bytes(ways, activation) + all_reduce_bytes(ways, scores)


def sequence_parallel_bytes(ways: int, layers: int, activation: float, scores: float, norms: float) -> float:
    """As much as without it, and the all-reduce of the gradients of the LayerNorms, ``norms`` bytes in all.

    The other arguments are those of ``tensor_parallel_bytes``. Each all-reduce is a reduce-scatter and an all-gather
    then (Korthikanti et al. 2022, arXiv:2205.05198).

    >>> sequence_parallel_bytes(2, 1, 10.0, 0.0, norms=4.0)
    64.0
    """
    return tensor_parallel_bytes(ways, layers, activation, scores) + all_reduce_bytes(ways, norms)


def context_parallel_bytes(ways: int, layers: int, activation: float, parameter_bytes: float) -> float:
    """Keys and values go round: n-1 hops forward, n-1 backward, and their gradients n; then gradients are added up.

    ``activation`` is batch × sequence × hidden in bytes; a rank's keys and values are 2/n of it
    (Liu et al. 2023, arXiv:2310.01889).

    >>> context_parallel_bytes(2, 1, 10.0, 0.0)
    40.0
    """
    hops = 0 if ways == 1 else 3 * ways - 2
    return layers * hops * 2 * activation / ways + all_reduce_bytes(ways, parameter_bytes)
