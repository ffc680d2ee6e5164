"""What communication costs beyond what computation hides, and what is spent on neither."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..spans import END, LABEL, RANK, START, STREAM, kind
from .rows import computing, covered, each_rank

if TYPE_CHECKING:
    import numpy as np

    from ..run import Run

TOGETHER = frozenset({"AllReduce", "ReduceScatter", "AllGather", "Broadcast", "AllToAll"})
"""Types of instruction that many ranks begin together, and whose bytes move until they end."""
SENDS = re.compile(r"to (\d+)")
"""The stream on which a rank sends to another."""
VALUE = re.compile(r"(?:Send (.+) to \w+ -?\d+|Recv (.+) from (?:any|\w+ -?\d+))$")
"""What a message carries."""


def exposed_communication(run: Run) -> list[float]:
    """Seconds in which a worker did not compute while something of its own was on its way; one per worker.

    On its way are a collective, from when the worker came to it; a message that it sends; and one that it awaits, from
    when that was sent. So what computation hides does not count, nor does waiting for a message that nobody has sent
    yet, as in a pipeline's bubble: that is ``waiting``. Ranks that come late to a collective let the others wait in it,
    as kernels of GPUs wait too. For every worker

        makespan = busy + exposed communication + waiting
    """
    import numpy as np

    computes, moving = computing(run), _moving(run)
    table = np.concatenate((computes, moving))
    both = each_rank(run, table[np.argsort(table[:, START], kind="stable")], _covered)
    alone = each_rank(run, computes, _covered)
    return [both[worker] - alone[worker] for worker in run.workers]


def waiting(run: Run) -> list[float]:
    """Seconds in which a worker neither computed nor had anything on its way; one per worker.

    It waits for others: while a pipeline fills and drains, for parameters that a server does not send yet, for samples
    that its host still loads, and at the end for those that are not done. See ``exposed_communication``.
    """
    first, last = run.spans.extent
    spent, exposed = each_rank(run, computing(run), _covered), exposed_communication(run)
    return [last - first - spent[worker] - more for worker, more in zip(run.workers, exposed, strict=True)]


def _covered(rows: np.ndarray) -> float:
    return covered(rows[:, START], rows[:, END])


def _moving(run: Run) -> np.ndarray:
    """Rows of spans in which something of a rank's own is on its way."""
    import numpy as np

    table = run.spans.table()
    kinds = np.array([kind(label) for label in run.spans.labels], dtype=object)[table[:, LABEL].astype(int)]
    sent, awaited = table[kinds == "Send"], table[kinds == "Recv"]
    together = table[np.isin(kinds, list(TOGETHER))]
    return np.concatenate((together, sent, _since_sent(run, awaited, sent)))


def _since_sent(run: Run, awaited: np.ndarray, sent: np.ndarray) -> np.ndarray:
    """Of what receivers wait for, the part after the message was sent: of several that can be meant, the last one.

    A message stands for those to ranks that are alike, as its sender does for its own.
    """
    import numpy as np

    values, targets = _values(run), _targets(run)
    many, found = max(values, default=0) + 2, awaited.copy()
    to = np.array(targets, dtype=float)[sent[:, STREAM].astype(int)]
    keys = [
        rank * many + np.array(values, dtype=float)[rows[:, LABEL].astype(int)]
        for rank, rows in ((to, sent), (awaited[:, RANK], awaited))
    ]
    whose, when = np.concatenate(keys), np.concatenate((sent[:, START], awaited[:, END]))
    order = np.lexsort((np.arange(len(when)) >= len(sent), when, whose))  # who sends just then comes first
    last = np.maximum.accumulate(np.where(order < len(sent), np.arange(len(order)), -1))
    before = order[last]
    known = (order >= len(sent)) & (last >= 0) & (whose[before] == whose[order])
    rows = order[known] - len(sent)
    found[rows, START] = np.maximum(found[rows, START], when[before[known]])
    return found


def _values(run: Run) -> list[int]:
    """For each label a number for what its message carries; -1 for labels of no message."""
    known: dict[str, int] = {}
    carried = [VALUE.match(label) for label in run.spans.labels]
    return [known.setdefault(one[1] or one[2], len(known)) if one else -1 for one in carried]


def _targets(run: Run) -> list[int]:
    """For each stream the rank that messages go to on it, or the one in whose place it was simulated; -1: to none."""
    alike, named = run.alike or range(run.ranks), [SENDS.fullmatch(name) for name in run.spans.streams]
    return [alike[int(one[1])] if one else -1 for one in named]
