"""Measuring a strategy, and what else the machine did meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import psutil

from lab.machine import is_idle
from simulator.metrics import step_ends
from simulator.run import Run

T = TypeVar("T")
WARM_UP = 3
"""Steps that do not count, of either clock."""
ALIKE = 0.1
"""Two runs that differ by no more are enough."""
MOST = 4
"""Runs of one cell at most."""


@dataclass(frozen=True)
class Machine:
    """What the machine did for a while: ``busy`` cores of other processes, ``load`` average, ``steal`` as a share."""

    busy: float
    load: float
    steal: float

    @property
    def idle(self) -> bool:
        """Whether others did so little that times can be trusted."""
        return is_idle(self.busy) and self.steal < 0.02


@dataclass(frozen=True)
class Observation:
    """Seconds per step, by how much the runs that count differed, bytes per step, and the machine meanwhile."""

    seconds: float
    spread: float
    stated: float
    machine: Machine


def steady(run: Run) -> float:
    """Seconds per step after the first steps: the mean, since some strategies do something every few steps only."""
    ends = step_ends(run)
    return (ends[-1] - ends[WARM_UP - 1]) / (run.steps - WARM_UP)


def undisturbed(measure: Callable[[], T], most: int = MOST) -> tuple[T, bool]:
    """What is measured while the machine is idle, if that is had in a few attempts; and whether it was."""
    while True:
        watch, most = Watch(), most - 1
        found = measure()
        idle = watch.stop().idle
        if idle or most <= 0:
            return found, idle


def observe(execute: Callable[[], Run], most: int = MOST) -> Observation:
    """Run until two runs are alike; the median of those while the machine was idle, or of all if it never was."""
    found: list[tuple[float, Machine, Run]] = []
    while len(found) < most:
        watch = Watch()
        run = execute()
        found.append((steady(run), watch.stop(), run))
        quiet = [seconds for seconds, machine, _ in found if machine.idle]
        if len(quiet) > 1 and _spread(quiet) <= ALIKE:
            break
    counting = [each for each in found if each[1].idle] or found
    seconds = [each[0] for each in counting]
    return Observation(
        median(seconds), _spread(seconds), sum(found[0][2].bytes_sent) / found[0][2].steps,
        max((each[1] for each in counting), key=lambda machine: machine.busy),
    )  # fmt: skip


def _spread(times: list[float]) -> float:
    return (max(times) - min(times)) / min(times)


class Watch:
    """Watches the machine from now on, this process and what it started left out."""

    def __init__(self) -> None:
        self.began, self.total, self.own = time.monotonic(), psutil.cpu_times(), own_seconds()

    def stop(self) -> Machine:
        """What the machine did since."""
        seconds = max(1e-3, time.monotonic() - self.began)
        total, own = psutil.cpu_times(), own_seconds()
        busy = _busy(total) - _busy(self.total)
        stolen = getattr(total, "steal", 0.0) - getattr(self.total, "steal", 0.0)
        cores = os.cpu_count() or 1
        # Clock ticks of 10 ms: in a short time less than nothing, or more than there is, may seem to be used.
        others = min(max(0.0, (busy - (own - self.own)) / seconds), float(cores))
        return Machine(others, os.getloadavg()[0], stolen / seconds / cores)


def _busy(times: object) -> float:
    names = ("user", "nice", "system", "irq", "softirq")
    return float(sum(getattr(times, name, 0.0) for name in names))


def own_seconds() -> float:
    """CPU seconds of this process and of its children, the ended ones included."""
    me = psutil.Process()
    seconds = 0.0
    for process in [me, *me.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        seconds += times.user + times.system
    return seconds + me.cpu_times().children_user + me.cpu_times().children_system
