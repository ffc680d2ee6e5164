"""Rows measured between the processes of this machine."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf

from lab.prediction import Here, measure_here, predict
from lab.profiling import Profile, profile
from lab.running import execute
from simulator.errors import ProgramError, RankError
from simulator.run import Run

from .cells import STEPS, Cell
from .observing import MOST, Observation, observe, steady, undisturbed
from .rows import Row

NETWORK = "loopback"
AHEAD = 60
"""Steps that are predicted, so that what is drawn by chance evens out; and at most measured."""
LONG = 0.5
"""Seconds that the steps of one run take, if they are not too many."""
LASTING = 60.0
"""Seconds for which the machine is what it was measured to be."""
Failed = (ValueError, RankError, ProgramError)


def measure(cells: Iterable[Cell], most: int = MOST) -> Iterator[Row]:
    """A row for each cell; where it cannot be run, the reason is its remark."""
    lately = Lately()
    for cell in cells:
        yield _row(cell, cell.refused) if cell.refused else _measured(cell, lately, most)


@dataclass
class Lately:
    """This machine as it was lately: measured anew once a minute, for what it does changes in minutes."""

    ranks: int = 0
    until: float = -inf
    found: tuple[Here, bool] | None = None

    def machine(self, ranks: int) -> tuple[Here, bool]:
        """What was measured, and whether the machine was idle then."""
        if self.found is None or self.ranks != ranks or time.monotonic() > self.until:
            self.found, self.ranks = undisturbed(lambda: measure_here(ranks)), ranks
            self.until = time.monotonic() + LASTING
        return self.found


def _measured(cell: Cell, lately: Lately, most: int) -> Row:
    try:
        here, calm = lately.machine(cell.ranks)
        times, quiet = undisturbed(lambda: profile(cell.strategy, cell.workload, cell.ranks))
        predicted = steady(foretell(cell, here, times, AHEAD))
        steps = enough(predicted)
        observed = observe(lambda: execute(cell.strategy, cell.workload, cell.ranks, steps, progress=False), most)
    except Failed as reason:
        return _row(cell, f"{type(reason).__name__}: {str(reason).splitlines()[0]}")
    return row_of(NETWORK, cell, calm and quiet, predicted, observed)


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
    network: str, cell: Cell, calm: bool, predicted: float, observed: Observation, counted: float | None = None
) -> Row:
    """A row with times; the machine counts as idle if it was ``calm`` when it was calibrated, and idle now."""
    machine = observed.machine
    return Row(
        network, cell.problem, cell.ranks, cell.name, str(cell.strategy), predicted, observed.seconds, observed.spread,
        machine.busy, calm and machine.idle, machine.load, machine.steal, observed.stated, counted,
    )  # fmt: skip


def _row(cell: Cell, remark: str) -> Row:
    return Row(NETWORK, cell.problem, cell.ranks, cell.name, str(cell.strategy), remark=remark)
