"""What a rank holds, and when: the memory that follows from its program, at the times that were observed."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from .. import checks
from ..spans import COMPUTE, END, LABEL, RANK, START, STEP, STREAM
from .rows import began

if TYPE_CHECKING:
    from ..footprint import Footprint, Moment
    from ..memory import Text
    from ..run import Run

PART = re.compile(r"^(Forward|Backward)Part (\d+)\.\d+")
"""A part of a block that ranks run together: memory looks at the block as a whole."""
Times = dict[str, deque[tuple[float, float]]]
"""Instructions of a step, by their texts: when each began and ended [s]."""


class Held(NamedTuple):
    """What is held from ``start`` on, in seconds since the run's first start."""

    step: int
    start: float
    held: Footprint


def memory_over_time(run: Run, rank: int = 0) -> list[Held]:
    """What a rank holds from when on, in order of time, as ``simulator.memory`` counts it.

    An instruction holds what it needs from when it began, the first from the beginning; what is put on a stream counts
    from when it is put there. Steps after those that ``memory`` walks are like the last of these. Raises ValueError for
    a rank that is not there, for programs that depend on what their instructions give, and where the program is not
    known.

    >>> from simulator import Model, Single, cluster, simulate
    >>> run = simulate(Single(), Model.of_times(blocks=1, parameters=1000), cluster("ideal", ranks=1), steps=1)
    >>> [(now.start, now.held.total) for now in memory_over_time(run)]  # with gradients from the backward pass on
    [(0.0, 4000.0), (0.0, 4000.0), (1.0, 4000.0), (1.0, 8000.0), (3.0, 8000.0)]
    """
    if checks.whole("rank", rank) >= run.ranks:
        there = f"{run.ranks} ranks has ranks 0 to {run.ranks - 1}" if run.ranks > 1 else "1 rank has rank 0 alone"
        raise ValueError(f"a run of {there}; got rank={rank}")
    walked = groupby(text_of(run).of(rank).over_time, lambda moment: moment.step)
    moments = {step: list(several) for step, several in walked}
    times, found = _times(run, run.alike[rank] if run.alike else rank), list[Held]()
    for step in range(run.steps):
        since = found[-1].start if found else 0.0
        found += _placed(step, moments[min(step, max(moments))], times.get(step, {}), since)
    return [found[0]._replace(start=0.0), *found[1:]]


def text_of(run: Run) -> Text:
    """What the memory of a run follows from. Raises ValueError where that is not known."""
    if run.text is None:
        raise ValueError(
            f"memory over time follows from the program; this run of {run.strategy} does not know its own, for files do"
            " not keep it: use simulator.memory(strategy, workload, ranks)"
        )
    return run.text


def _times(run: Run, rank: int) -> dict[int, Times]:
    """For each step of a rank, when its program came to what; the parts of a block are one."""
    table = run.spans.table()
    ours = table[(table[:, RANK] == rank) & (table[:, STREAM] == run.spans.stream(COMPUTE))]
    ours[:, START:END + 1] -= began(run)
    found: dict[int, Times] = {}
    for row in ours[ours[:, START].argsort(kind="stable")].tolist():
        label = run.spans.labels[int(row[LABEL])]
        whole, parts = PART.subn(r"\1 \2", label)
        several = found.setdefault(int(row[STEP]), {}).setdefault(whole, deque())
        if parts and several:
            several[0] = several[0][0], row[END]
        else:
            several.append((row[START], row[END]))
    return found


def _placed(step: int, moments: Sequence[Moment], times: Times, since: float) -> Iterator[Held]:
    """Each moment when its instruction began; what stands on another stream, when the program had come to it."""
    for moment in moments:
        here = times.get(moment.instruction)
        start, end = here.popleft() if here else (since, since)
        yield Held(step, max(start, since), moment.held)
        since = max(end, since)
