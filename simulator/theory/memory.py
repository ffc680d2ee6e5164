"""How much memory training takes: model states whole and sharded, activations of pipelines. Bytes per rank."""

from __future__ import annotations

from .pipelines import in_flight


def model_states(parameters: float, numbers: int = 2, accumulate: bool = False) -> float:
    """Mixed precision: 2 B per parameter, 2 per gradient, 4 for the master copy and for each number that a rule keeps.

    16 Ψ with Adam (``numbers=2``), 18 Ψ where gradients are accumulated in 4 B (Rajbhandari et al. 2020,
    arXiv:1910.02054, section 3.1).

    >>> model_states(7.5e9) / 1e9
    120.0
    """
    return parameters * (2 + (4 if accumulate else 2) + 4 + 4 * numbers)


def sharded_states(
    stage: int, ranks: int, parameters: float, numbers: int = 2, bucket: float = 0.0, gathered: int = 2
) -> float:
    """What of ``model_states`` is left on one of n ranks under ZeRO: 4Ψ + 12Ψ/n, 2Ψ + 14Ψ/n, 16Ψ/n with Adam.

    That is as the paper counts, with ``bucket=0``. While it works a rank also has whole what it uses: of a bucket [in
    parameters] the gradients that are being reduced (stages 2 and 3), and ``gathered`` buckets of parameters (stage 3:
    one in use, one ahead). Source: Rajbhandari et al. 2020, arXiv:1910.02054, figure 1.

    >>> [round(sharded_states(stage, 64, 7.5e9) / 1e9, 2) for stage in (1, 2, 3)]
    [31.41, 16.64, 1.88]
    """
    rest = parameters * (4 + 4 * numbers) / ranks
    parts = parameters / ranks, bucket * (1 - 1 / ranks)
    gradients = 2 * parameters if stage < 2 else 2 * sum(parts)
    held = 2 * parameters if stage < 3 else 2 * (parts[0] + gathered * parts[1])
    return held + gradients + rest


def pipeline_activations(
    schedule: str, stage: int, stages: int, microbatches: int, microbatch: float, chunks: int = 2
) -> float:
    """The most activations that a stage holds, where those of one microbatch in its blocks take ``microbatch`` bytes.

    GPipe m of them, 1F1B p-s; see ``in_flight``.

    >>> [pipeline_activations("1f1b", stage, 4, 8, 1e9) / 1e9 for stage in range(4)]
    [4.0, 3.0, 2.0, 1.0]
    """
    return in_flight(schedule, stage, stages, microbatches, chunks) * microbatch
