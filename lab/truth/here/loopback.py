"""Rows measured between the processes of this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import groupby

from lab.machine import is_idle
from lab.prediction import Here, measure_here, predict
from lab.profiling import Profile, profile
from lab.running import execute
from simulator.errors import ProgramError, RankError
from simulator.run import Run

from .cells import STEPS, Cell
from .observing import MOST, Observation, observe, steady
from .rows import Row

NETWORK = "loopback"
AHEAD = 60
"""Steps that are predicted, so that what is drawn by chance evens out; and at most measured."""
LONG = 0.5
"""Seconds that the steps of one run take, if they are not too many."""
Failed = (ValueError, RankError, ProgramError)


def measure(cells: Iterable[Cell], most: int = MOST) -> Iterator[Row]:
    """A row for each cell; where it cannot be run, the reason is its remark.

    The machine is measured anew for each problem and number of ranks: what it does changes from minute to minute.
    """
    for _, alike in groupby(cells, key=lambda cell: (cell.problem, cell.ranks)):
        machines = cache(measure_here)
        for cell in alike:
            yield _row(cell, cell.refused) if cell.refused else _measured(cell, machines, most)


def _measured(cell: Cell, machines: object, most: int) -> Row:
    try:
        here: Here = machines(cell.ranks)  # type: ignore[operator]
        times = profile(cell.strategy, cell.workload, cell.ranks)
        predicted = steady(foretell(cell, here, times, AHEAD))
        steps = enough(predicted)
        observed = observe(lambda: execute(cell.strategy, cell.workload, cell.ranks, steps, progress=False), most)
    except Failed as reason:
        return _row(cell, f"{type(reason).__name__}: {str(reason).splitlines()[0]}")
    return row_of(NETWORK, cell, here, predicted, observed)


def foretell(cell: Cell, here: Here, times: Profile, steps: int = STEPS) -> Run:
    """The prediction; with tensors where a program does not tell without them what it sends."""
    try:
        return predict(cell.strategy, cell.workload, here, times, steps)
    except ValueError:
        return predict(cell.strategy, cell.workload, here, times, steps, learn=True)


def enough(seconds: float) -> int:
    """Steps of a run, by what one is predicted to take: of short ones more, since chance weighs more in them."""
    return max(STEPS, min(AHEAD, round(LONG / seconds)))


def row_of(
    network: str, cell: Cell, here: Here, predicted: float, observed: Observation, counted: float | None = None
) -> Row:
    """A row with times; the machine counts as idle if it was so both when it was calibrated and now."""
    machine, idle = observed.machine, observed.machine.idle and is_idle(here.busy)
    return Row(
        network, cell.problem, cell.ranks, cell.name, str(cell.strategy), predicted, observed.seconds, observed.spread,
        machine.busy, idle, machine.load, machine.steal, observed.stated, counted,
    )  # fmt: skip


def _row(cell: Cell, remark: str) -> Row:
    return Row(NETWORK, cell.problem, cell.ranks, cell.name, str(cell.strategy), remark=remark)
