"""When the last member came to each collective: until then the others wait, and nothing moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..spans import END, LABEL, RANK, START, STREAM, kind
from .exposure import TOGETHER

if TYPE_CHECKING:
    import numpy as np

    from ..run import Run


def last_arrivals(run: Run) -> np.ndarray:
    """For each span of a collective, when the last of its members came to it [s]; for all others, their own start.

    Spans do not name the members. Those of the n-th collective of one text on one stream belong together if they end
    at once, as they do under the virtual clock; where all ends differ, as on real ranks, those that overlap.
    """
    import numpy as np

    table = run.spans.table()
    together = np.array([kind(label) in TOGETHER for label in run.spans.labels], dtype=bool)
    where = np.flatnonzero(together[table[:, LABEL].astype(int)])
    last, rows = table[:, START].copy(), table[where]
    groups = _numbered(rows[:, [STREAM, LABEL]], _turns(rows))
    cohorts = _numbered(groups[:, None], rows[:, END])
    several = np.bincount(cohorts)[cohorts] > 1
    came = np.full(cohorts.max(initial=-1) + 1, -np.inf)
    np.maximum.at(came, cohorts, rows[:, START])
    last[where] = came[cohorts]
    for rows_of in _split(groups[~several]):
        found = np.flatnonzero(~several)[rows_of]
        last[where[found]] = _overlapping(rows[found, START], rows[found, END])
    return last


def _turns(rows: np.ndarray) -> np.ndarray:
    """For each row, how many of the same rank, stream and label began before it."""
    import numpy as np

    order = np.lexsort((rows[:, START], rows[:, LABEL], rows[:, STREAM], rows[:, RANK]))
    same = np.ones(len(rows), dtype=bool)
    for column in (RANK, STREAM, LABEL):
        same[1:] &= np.diff(rows[order, column]) == 0
    same[:1] = False
    at = np.arange(len(rows))
    turns = np.empty(len(rows))
    turns[order] = at - np.maximum.accumulate(np.where(same, 0, at))
    return turns


def _numbered(rows: np.ndarray, *columns: np.ndarray) -> np.ndarray:
    """A whole number for each row, the same for the same values."""
    import numpy as np

    return np.unique(np.column_stack((rows, *columns)), axis=0, return_inverse=True)[1].ravel()


def _split(groups: np.ndarray) -> list[np.ndarray]:
    """The rows of each group of two or more."""
    import numpy as np

    order = np.argsort(groups, kind="stable")
    pieces = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    return [piece for piece in pieces if len(piece) > 1]


def _overlapping(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The last start of those that began before any of them ended; in the order of the rows."""
    import numpy as np

    last, order = start.copy(), np.argsort(start, kind="stable")
    first = 0
    for at in range(1, len(order) + 1):
        if at == len(order) or start[order[at]] > end[order[first:at]].min():
            last[order[first:at]] = start[order[at - 1]]
            first = at
    return last
