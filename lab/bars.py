"""The bars of a timeline: what was observed, waiting told from working, and many small ones as one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np

from simulator import metrics
from simulator.metrics.exposure import TOGETHER
from simulator.run import Run
from simulator.spans import END, LABEL, RANK, START, STREAM, kind

WAITING = "waiting"
"""What a collective does until its last member has come."""
SENDS = "to …"
"""The row in which all streams to single ranks ("to 3") are drawn."""
SEEN = 1e-3
"""Waiting is told apart from this share of the time shown on: about a dot of the picture."""
VISITS = {
    **dict.fromkeys(("Forward", "ForwardPart"), "forward"),
    **dict.fromkeys(("Backward", "BackwardInput", "BackwardPart"), "backward"),
    "BackwardWeight": "weights",
}
"""What a microbatch comes to a rank for."""
INSIDE = {*TOGETHER, WAITING}
"""What a visit may go through beside its own work."""
NUMBER = re.compile(r"\bmb ?(\d+)")


class Bar(NamedTuple):
    """``kind``: the type of instruction, or ``WAITING``; ``microbatch``: -1 where there is none. Times in seconds."""

    rank: int
    lane: str
    kind: str
    microbatch: int
    start: float
    end: float


def bars(run: Run, rows: np.ndarray) -> list[Bar]:
    """The bars of some spans, given by their numbers. Those that took no time have none, unless none took any."""
    table, came = run.spans.table()[rows], metrics.last_arrivals(run)[rows]
    kinds = [kind(label) for label in run.spans.labels]
    numbers = [_microbatch(label) for label in run.spans.labels]
    lanes = [SENDS if stream.startswith("to ") else stream for stream in run.spans.streams]
    took_time = bool((table[:, END] > table[:, START]).any())
    least = SEEN * (table[:, END].max(initial=0.0) - table[:, START].min(initial=np.inf))
    found = []
    for row, moved in zip(table.tolist(), came.tolist(), strict=True):
        what, number, start, end = kinds[int(row[LABEL])], numbers[int(row[LABEL])], row[START], row[END]
        here = int(row[RANK]), lanes[int(row[STREAM])]
        if moved - start > least:
            found.append(Bar(*here, WAITING, number, start, min(moved, end)))
            start = moved
        if end > start or not took_time:
            found.append(Bar(*here, what, number, start, end))
    return found


def _microbatch(label: str) -> int:
    found = NUMBER.search(label)
    return int(found[1]) if found else -1


def visits(several: Iterable[Bar]) -> list[Bar]:
    """The forward or backward work of a rank for a microbatch as one bar, collectives in the midst of it included."""
    rows = groupby(sorted(several, key=_place), key=lambda bar: (bar.rank, bar.lane))
    return [visit for _, row in rows for visit in _joined(row)]


def _place(bar: Bar) -> tuple[int, str, float, float]:
    return bar.rank, bar.lane, bar.start, bar.end


def _joined(row: Iterable[Bar]) -> Iterator[Bar]:
    visit: Bar | None = None
    for bar in row:
        if visit is not None and _belongs(bar, visit):
            visit = visit._replace(end=max(visit.end, bar.end))
        else:
            if visit is not None:
                yield visit
            visit = bar
    if visit is not None:
        yield visit


def _belongs(bar: Bar, visit: Bar) -> bool:
    """Whether a bar goes on with a visit: at once, for the same microbatch and purpose, or as what this waits for."""
    going_on = bar.start <= visit.end + 1e-9 * abs(visit.end) and bar.microbatch == visit.microbatch
    if not going_on or visit.kind not in VISITS:
        return going_on and bar.kind == visit.kind == WAITING
    return VISITS.get(bar.kind, VISITS[visit.kind] if bar.kind in INSIDE else "") == VISITS[visit.kind]
