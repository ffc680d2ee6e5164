"""The rows of spans that metrics read: which of them compute, and which are whose."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from ..computing import COMPUTING
from ..passes import Load
from ..spans import LABEL, RANK, START, kind

if TYPE_CHECKING:
    import numpy as np

    from ..run import Run

COMPUTATION = frozenset(one.__name__ for one in COMPUTING)
"""Types of instruction that compute; all others communicate, wait or take no time."""
ON_DEVICE = COMPUTATION - {Load.__name__}
"""Those that keep a device busy: samples are fetched by its host."""

T = TypeVar("T")


def began(run: Run) -> float:
    """When the first span started, on the run's own clock [s]. 0 without spans."""
    table = run.spans.table()
    return float(table[:, START].min()) if len(table) else 0.0


def each_rank(run: Run, table: np.ndarray, function: Callable[[np.ndarray], T]) -> list[T]:
    """What a function makes of the rows of each rank, one after another; ranks without rows included.

    ``table`` holds rows of spans in any order; each rank gets its own in that order, and a rank that was not simulated
    those of the one that was in its place. Every metric that has one number per rank comes through here.
    """
    import numpy as np

    alike = run.alike or range(run.ranks)
    ranks = sorted(set(alike))
    table = table[np.argsort(table[:, RANK], kind="stable")]
    edges = np.searchsorted(table[:, RANK], [*ranks, run.ranks]).tolist()
    found = {rank: function(table[first:last]) for rank, (first, last) in zip(ranks, pairwise(edges))}
    return [found[rank] for rank in alike]


def computing(run: Run) -> np.ndarray:
    """The rows of spans that keep devices busy, in order of start."""
    import numpy as np

    table = run.spans.table()
    computes = np.array([kind(label) in ON_DEVICE for label in run.spans.labels], dtype=bool)
    table = table[computes[table[:, LABEL].astype(int)]]
    return table[np.argsort(table[:, START], kind="stable")]


def covered(start: np.ndarray, end: np.ndarray) -> float:
    """The length of a union of intervals sorted by start: each adds what lies beyond all ends before it."""
    import numpy as np

    if not len(start):
        return 0.0
    reached = np.concatenate((start[:1], np.maximum.accumulate(end)[:-1]))
    return float(np.maximum(0.0, end - np.maximum(start, reached)).sum())
