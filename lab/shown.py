"""The part of a run that a picture of it shows: which steps, which ranks, and until when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator import checks, metrics
from simulator.run import Run
from simulator.spans import END, RANK, START, STEP

from .bars import Bar, bars, visits
from .drawing import A_RUN

BARS = 5000
"""What a picture can hold: matplotlib grows slow and eyes tired beyond it."""

ROWS = 32
"""Ranks that can still be told apart."""


@dataclass(frozen=True)
class View:
    """The part of a run that a picture shows: some bars, from ``origin`` [s] on, for some ``seconds`` of ``all``.

    ``joined``: whether each bar is all that a rank does for a microbatch at a time.
    """

    bars: list[Bar]
    origin: float
    seconds: float
    all: float
    steps: range
    ranks: list[int]
    joined: bool


def view_of(run: Run, steps: int | range | None, name: str = "run") -> View:
    """What there is to see of some steps. Raises ValueError for what is no Run, and where nothing was observed."""
    checks.kind(name, run, Run, A_RUN)
    table, step, wanted = run.spans.table(), _steps(run), wanted_steps(run, steps)
    room = np.isin(table[:, RANK], _ranks(run))
    shown = room & np.isin(step, wanted)
    if not shown.any():
        raise ValueError(f"the run has spans in steps 0 to {run.steps - 1}; got steps={steps}")
    shown &= step <= _last_that_fits(step[shown])
    which = range(int(step[shown].min()), int(step[shown].max()) + 1)
    start = float(table[shown, START].min())
    shown |= room & ~_own(run) & (step < which[0]) & (table[:, END] > start)  # a server waits since before
    every = [bar._replace(start=max(bar.start, start)) for bar in bars(run, np.flatnonzero(shown)) if bar.end >= start]
    drawn = visits(every) if len(every) > BARS else every
    end = max(bar.end for bar in drawn)
    until, fitting = _first(_of_fewer(drawn), end)
    ranks = sorted({bar.rank for bar in fitting})
    return View(fitting, start, until - start, end - start, which, ranks, joined=len(every) > BARS)


def wanted_steps(run: Run, steps: int | range | None) -> range | list[int] | tuple[int, ...]:
    """The steps that somebody asked for."""
    kinds = (int, range, list, tuple, type(None))
    checks.kind("steps", steps, kinds, "how many steps to show, or which, such as range(2, 4)")
    if steps is None:
        return range(run.steps)
    if not isinstance(steps, int):
        return steps
    if not 1 <= steps <= run.steps:
        raise ValueError(
            f"of a run of {run.steps} steps, 1 to {run.steps} can be shown, or which, such as range(2, 4); got"
            f" steps={steps}"
        )
    return range(steps)


def _steps(run: Run) -> np.ndarray:
    """The step of each span. What a server does belongs to the step that ends next, for it has none of its own.

    So does what anybody does in an asynchronous run: there one worker may be many steps ahead of another.
    """
    table = run.spans.table()
    meanwhile = np.searchsorted(metrics.step_ends(run), table[:, START] - metrics.began(run), side="right")
    return np.where(_own(run), table[:, STEP], np.minimum(meanwhile, run.steps - 1))


def _own(run: Run) -> np.ndarray:
    """Which spans have a step of their own."""
    return np.isin(run.spans.table()[:, RANK], [] if run.asynchronous else run.workers)


def _ranks(run: Run) -> list[int]:
    """The ranks that find room: servers in half of it, workers in the rest."""
    workers = set(run.workers)
    servers = spread([rank for rank in run.stands_for if rank not in workers], ROWS // 2)
    return [*servers, *spread([rank for rank in run.stands_for if rank in workers], ROWS - len(servers))]


def spread(ranks: list[int], room: int) -> list[int]:
    """So many of the ranks, evenly spread, so that a pipeline's stages are all there."""
    count = min(room, len(ranks))
    return [ranks[at * len(ranks) // count] for at in range(count)]


def _of_fewer(drawn: list[Bar]) -> list[Bar]:
    """The bars of fewer ranks, where there are too many."""
    ranks = sorted({bar.rank for bar in drawn})
    chosen = set(spread(ranks, max(1, len(ranks) * BARS // len(drawn))))
    return [bar for bar in drawn if bar.rank in chosen]


def _first(drawn: list[Bar], end: float) -> tuple[float, list[Bar]]:
    """The bars that fit, and until when all of them do [s]."""
    if len(drawn) <= BARS:
        return end, drawn
    in_order = sorted(drawn, key=lambda bar: bar.start)
    return in_order[BARS].start, in_order[:BARS]


def _last_that_fits(values: np.ndarray) -> int:
    """The largest value such that at most ``BARS`` entries are no larger; but at least the smallest value."""
    kinds, counts = np.unique(values, return_counts=True)
    fitting = int(np.count_nonzero(np.cumsum(counts) <= BARS))
    return int(kinds[max(0, fitting - 1)])


def note(run: Run, view: View) -> str:
    """Which part is shown, where it is not all, on a line of its own."""
    part = []
    if len(view.steps) < run.steps:
        first, last = view.steps[0], view.steps[-1]
        part.append(f"{f'step {first}' if first == last else f'steps {first}–{last}'} of 0–{run.steps - 1}")
    if len(view.ranks) < len(run.stands_for):
        part.append(f"{len(view.ranks)} of {run.ranks} ranks")
    if view.seconds < view.all:
        part.append(f"the first {metrics.readable(view.seconds)} of {metrics.readable(view.all)}")
    said = [f"{' and '.join(part)} shown"] if part else []
    if len(view.ranks) == len(run.stands_for) < run.ranks:
        said.append(f"{len(view.ranks)} ranks stand for all {run.ranks}")
    if view.joined:
        said.append("all that a rank does for a microbatch at a time is one bar")
    return f"\n({'; '.join(said)})" if said else ""
