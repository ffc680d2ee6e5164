"""Weeks of training with crashes: a SimPy process that wraps the time of a step."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import cache
from math import inf
from random import Random
from typing import Any

import simpy

from .. import checks
from ..metrics import steady_step
from ..run import Run
from .history import Event, Training
from .law import Failures
from .reliability import elastic_step_time

Process = Generator[simpy.Event, Any, None]
Attempt = Generator[simpy.Event, Any, bool]
"""A part of a process that gives False where a crash cut it short."""


def simulate_training(
    step_time: float | Run | Callable[[int], float], *, nodes: int, hours: float, failures: Failures, seed: int = 0
) -> Training:
    """Simulate a training of so many hours on ``nodes`` nodes that crash; the same seed gives the same timeline.

    Between two checkpoints nothing happens but steps, so only crashes, checkpoints and restarts are simulated: months
    take a second or so. Steps are extrapolated from ``step_time`` [s], which is a number; or a Run, whose steps after
    the first are averaged; or a function from the number of nodes to seconds, for trainings that shrink: it is asked
    for a step of the whole batch, or with ``elastic="rescale"`` of what so many nodes keep of it. A number or a Run
    holds for all nodes; with fewer a step of the whole batch takes N/n as long.

    Raises ValueError for times that are not positive and for fewer nodes than ``failures.least``.

        >>> law = Failures(mtbf=30 * 86400, checkpoint=30, restart=120)
        >>> training = simulate_training(5.0, nodes=64, hours=24 * 365, failures=law)
        >>> training.crashes, training.useful_steps, round(training.goodput, 3), round(law.goodput(64), 3)
        (819, 6039442, 0.958, 0.959)
    """
    checks.kind("failures", failures, Failures, "a law of crashes, as in Failures(mtbf=5e6)")
    checks.whole("nodes", nodes, least=failures.least)
    seconds = checks.number("hours", hours, above=0) * 3600
    job = Job(_step(step_time, nodes, failures.elastic), nodes, seconds, failures, checks.whole("seed", seed))
    return Training(nodes, seconds, job.step(nodes), failures, seed, tuple(job.run()))


def _step(step_time: float | Run | Callable[[int], float], nodes: int, elastic: str) -> Callable[[int], float]:
    """Seconds of a step by the number of nodes."""
    if callable(step_time):
        function = step_time
        return cache(lambda left: checks.number(f"step_time({left})", function(left), above=0))
    if isinstance(step_time, Run):
        step_time = steady_step(step_time)
    step = checks.number("step_time", step_time, above=0)
    return lambda left: elastic_step_time(step, nodes, left) if elastic == "accumulate" else step


class Job:
    """One training under way: its process, the nodes it has, the spares, and what it noted so far."""

    def __init__(self, step: Callable[[int], float], nodes: int, seconds: float, failures: Failures, seed: int) -> None:
        self.step, self.all, self.seconds, self.failures = step, nodes, seconds, failures
        self.env, self.random = simpy.Environment(), Random(f"failures {seed}")
        self.interval = min(failures.interval_for(nodes), seconds)
        self.nodes = self.before = nodes  # now, and when it last ran
        self.spares = failures.spares
        self.left = failures.draw(self.random)  # until the next crash, in mean times between crashes
        self.timeline: list[Event] = []
        self.doing, self.since = "", 0.0
        self.saved = 0  # events of the timeline that no crash can undo
        self.returned = self.env.event()

    def run(self) -> list[Event]:
        """The timeline until the end, where what is under way is cut."""
        self.env.process(self.life())
        self.env.run(until=self.seconds)
        if self.since < self.seconds:
            self.note(self.doing, self.since)
        return self.timeline

    def life(self) -> Process:
        """Work, save, and after every crash recover."""
        while True:
            well = yield from self.segment()
            if well and self.spares and self.nodes < self.all:
                well = yield from self.grow()
            if not well:
                yield from self.recover()

    # ------------------------------------------------------------ while it goes well

    def segment(self) -> Attempt:
        """Work for an interval, in whole steps, and write a checkpoint."""
        step = self.step(self.nodes)
        steps = max(1, round(self.interval / step))
        well = yield from self.spell("work", steps * step)
        if well:
            well = yield from self.spell("checkpoint", self.failures.checkpoint)
        if well:
            self.saved = len(self.timeline)
        return well

    def grow(self) -> Attempt:
        """Take back repaired nodes, right after a checkpoint so that nothing is lost."""
        self.take_spares()
        self.note_size()
        return (yield from self.spell("restart", self.failures.restart))

    # ------------------------------------------------------------ after a crash

    def recover(self) -> Process:
        """From a crash until the next step may begin; crashes while it restarts begin it anew."""
        well = False
        while not well:
            self.crash()
            yield from self.spell("detect", self.failures.detection, at_risk=False)
            yield from self.find_nodes()
            well = yield from self.spell("restart", self.failures.restart)

    def crash(self) -> None:
        """What is not saved is lost, and perhaps a node: not if what crashed is common to all."""
        lost = [event._replace(kind="lost") if event.kind == "work" else event for event in self.timeline[self.saved :]]
        self.timeline[self.saved :] = lost
        if self.random.random() >= 1 / self.failures.common_mtbf / self.failures.rate(self.nodes):
            self.nodes -= 1
            self.repair()
        self.note("crash", self.env.now)
        self.saved = len(self.timeline)

    def repair(self) -> None:
        """A crashed node becomes a spare, later or, where a restart is all it needs, at once."""
        if self.failures.repair:
            self.env.process(self.repaired())
        else:
            self.spares += 1

    def repaired(self) -> Process:
        yield self.env.timeout(self.failures.repair)
        self.spares += 1
        self.returned.succeed()
        self.returned = self.env.event()

    def find_nodes(self) -> Process:
        """Fill the places of crashed nodes with spares; without enough, go on with fewer or wait for repairs."""
        enough = self.all if self.failures.elastic == "wait" else self.failures.least
        self.take_spares()
        if self.nodes < enough:
            self.doing, self.since = "wait", self.env.now
            while self.nodes < enough:
                yield self.returned
                self.take_spares()
            self.note("wait", self.since)
        self.note_size()

    # ------------------------------------------------------------ pieces

    def spell(self, kind: str, seconds: float, at_risk: bool = True) -> Attempt:
        """Spend some seconds, or fewer if a crash comes first: then False.

        The way to the next crash is measured in mean times between crashes, so that it stays the same way when the
        number of nodes changes, and only the pace does.
        """
        if not seconds:
            return True
        pace = self.failures.rate(self.nodes) if at_risk else 0.0
        crash = self.left / pace if pace else inf
        self.doing, self.since = kind, self.env.now
        yield self.env.timeout(min(seconds, crash))
        self.left = max(0.0, self.left - pace * seconds) if crash > seconds else self.failures.draw(self.random)
        self.note(kind, self.since)
        return crash > seconds

    def take_spares(self) -> None:
        taken = min(self.spares, self.all - self.nodes)
        self.nodes, self.spares = self.nodes + taken, self.spares - taken

    def note(self, kind: str, start: float) -> None:
        steps = (self.env.now - start) / self.step(self.nodes) if kind == "work" else 0.0
        self.timeline.append(Event(kind, start, self.env.now, self.nodes, steps))
        self.since = self.env.now

    def note_size(self) -> None:
        """Whether it goes on with fewer nodes than before, or with more."""
        if self.nodes != self.before:
            self.note("shrink" if self.nodes < self.before else "grow", self.env.now)
        self.before = self.nodes
