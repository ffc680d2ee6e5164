"""Closed forms of pipelines: makespan, bubble, microbatches in flight, bytes."""

from __future__ import annotations

from .. import checks


def pipeline(stages: int, microbatches: int, forward: float, backward: float) -> float:
    """(m + p - 1)(F + B): makespan of GPipe and of 1F1B (Narayanan et al. 2021, arXiv:2104.04473).

    >>> pipeline(4, 8, 1.0, 2.0)
    33.0
    """
    return (microbatches + stages - 1) * (forward + backward)


def naive_pipeline(stages: int, microbatches: int, forward: float, backward: float) -> float:
    """m·p·(F + B): makespan where one stage works at a time [s].

    ``forward`` and ``backward`` are the times F and B of a stage and microbatch [s] (Huang et al. 2019,
    arXiv:1811.06965, figure 2b).

    >>> naive_pipeline(4, 8, 1.0, 2.0)
    96.0
    """
    return microbatches * stages * (forward + backward)


def bubble_overhead(stages: int, microbatches: int) -> float:
    """(p-1)/m: idle time over *ideal* time. The fraction of wall time is ``bubble_fraction``.

    Of GPipe and 1F1B with p equal stages and m microbatches (Narayanan et al. 2021, arXiv:2104.04473).

    >>> bubble_overhead(4, 8)
    0.375
    """
    return (stages - 1) / microbatches


def bubble_fraction(stages: int, microbatches: int) -> float:
    """(p-1)/(m+p-1): idle time over *wall* time (Huang et al. 2019, arXiv:1811.06965).

    >>> round(bubble_fraction(4, 8), 4)
    0.2727
    """
    return (stages - 1) / (microbatches + stages - 1)


def interleaved_pipeline(stages: int, microbatches: int, chunks: int, forward: float, backward: float) -> float:
    """m(F+B) + (p-1)(F+B)/v: makespan of interleaved 1F1B with v chunks per rank (Narayanan et al. 2021, as above).

    ``forward`` and ``backward`` are the times of one microbatch through all chunks of a rank [s].

    >>> interleaved_pipeline(4, 8, 2, 1.0, 2.0)
    28.5
    """
    return (microbatches + (stages - 1) / chunks) * (forward + backward)


def zero_bubble_idle(schedule: str, stages: int, forward: float, inputs: float, weights: float) -> float:
    """How long a rank idles at most between its first start and its last end [s]: (p-1)(F+b-W) under "zb-h1",
    (p-1)(F+b-2W) under "zb-h2".

    ``forward``, ``inputs`` and ``weights`` are the times F, b and W of a stage. Exact where W ≤ F and m ≥ p (H1), and
    where W ≤ F, W ≤ b and m ≥ 2p-1 (H2). Source: Qi et al. 2023 (arXiv:2401.10241).

    >>> zero_bubble_idle("zb-h1", 4, 1.0, 1.0, 1.0)
    3.0
    """
    halves = {"zb-h1": 1, "zb-h2": 2}
    checks.one_of("schedule", schedule, halves)
    return (stages - 1) * (forward + inputs - halves[schedule] * weights)


def in_flight(schedule: str, stage: int, stages: int, microbatches: int, chunks: int = 2) -> float:
    """Most microbatches that a stage holds, by the name of a schedule.

    m under "gpipe", min(m, p-s) under "1f1b", 1 under "naive", (2(p-s-1) + (v-1)p + 1)/v (but at most m) under
    "interleaved" with v ``chunks``; p under "zb-h1" and "zbv" and 2p-1 under "zb-h2", where m ≥ 2p-1. Sources:
    Narayanan et al. 2021 (arXiv:2104.04473), Qi et al. 2023 (arXiv:2401.10241).

    >>> [in_flight("interleaved", stage, 4, 8) for stage in range(4)]
    [5.5, 4.5, 3.5, 2.5]
    """
    visits = 2 * (stages - stage - 1) + (chunks - 1) * stages + 1
    found = {
        "naive": 1,
        "gpipe": microbatches,
        "1f1b": min(microbatches, stages - stage),
        "interleaved": min(microbatches, visits / chunks),
        "zb-h1": min(microbatches, stages),
        "zb-h2": min(microbatches, 2 * stages - 1),
        "zbv": min(microbatches, stages),
    }
    checks.one_of("schedule", schedule, found)
    return found[schedule]


def pipeline_bytes(boundaries: list[float]) -> list[float]:
    """Bytes that each stage sends per step: activations to the next, their gradients to the one before.

    ``boundaries`` are the bytes of the activations between neighbouring stages, over the whole batch: one fewer than
    there are stages. Gradients are as large. Each stage once, so without interleaving.

    >>> pipeline_bytes([100.0, 40.0])
    [100.0, 140.0, 40.0]
    """
    return [right + left for right, left in zip([*boundaries, 0.0], [0.0, *boundaries])]
