"""Measure this machine, so that the virtual clock predicts it.

Measuring is itself a program: ``Alone`` computes on all ranks at once, ``probing.Probe`` sends and reduces buffers of
several sizes. Both run on the wall clock like any strategy, and the times are read from their spans; so it measures
what programs cost here, the interpreter and ranks sharing cores included.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import ClassVar, cast

from simulator import checks
from simulator.cluster import Cluster
from simulator.model import Model
from simulator.problem import Problem
from simulator.program import Barrier, Reduce, Update
from simulator.rank import Rank
from simulator.run import Run
from simulator.spans import COMPUTE, Span, kind
from simulator.stack import Order, Program
from simulator.strategies.single import gradient
from simulator.values import Grads, Params, bounds
from simulator.work import Measured, Work

from .machine import busy_cores, is_idle
from .probing import measure_network
from .running import execute

STEPS = 16
WARM_UP = 2
PARTS = (1, 2, 4, 8, 16)
"""Shares of the batch with which blocks are measured."""


@dataclass(frozen=True)
class Calibration:
    """A machine as measured: its ``cluster``, and the ``problem`` with the times of its blocks (``problem.times``).

    ``busy`` is how many cores other processes were using when it began; when that is not near 0, predictions are
    doubtful.
    """

    cluster: Cluster
    problem: Problem
    busy: float

    @property
    def idle(self) -> bool:
        """Whether the machine was idle when it was measured."""
        return is_idle(self.busy)


def calibrate(problem: Problem, ranks: int = 2, computing: int | None = None, seed: int = 0) -> Calibration:
    """Measure each block of a problem with ``computing`` ranks at once, and messages between ``ranks`` ranks.

    ``computing`` is ``ranks`` unless told otherwise; where some ranks only serve it is the number of workers. Takes a
    few seconds. Simulate ``calibration.problem`` on ``calibration.cluster`` to predict a run on this machine.
    Raises ValueError for what is no Problem, and RankError as ``execute`` does.

    Example::

        here = lab.calibrate(sim.problem("digits-mlp"), ranks=2)
        predicted = sim.simulate(sim.DataParallel(), here.problem, here.cluster, steps=20)
    """
    checks.kind("problem", problem, Problem, 'a Problem, such as sim.problem("digits-mlp")')
    ranks = checks.whole("ranks", ranks, least=1)
    computing = ranks if computing is None else checks.whole("computing", computing, least=1)
    busy = busy_cores()
    times = measure_blocks(problem, computing, seed)
    cluster = measure_network(problem, ranks, seed)
    return Calibration(cluster, replace(problem, times=times), busy)


# ---------------------------------------------------------------- compute


@dataclass(frozen=True)
class Alone(Order):
    """Every rank trains by itself on 1/``part`` of the batch, all at the same time.

    In every other step it updates block by block, so that small updates are measured too.
    """

    axis: ClassVar[str | None] = "alone"

    part: int = 1

    def share(self, me: Rank) -> tuple[int, int]:
        return me.at("alone") % self.part, self.part

    def program(self, me: Rank) -> Program:
        for step in me.steps():
            yield Barrier()
            yield from gradient(me)
            yield from _updates(me.model)[step % 2]
            yield from _reductions(me.model)


def _updates(model: Model) -> tuple[list[Update], list[Update]]:
    """One update of everything; one of each block that has parameters."""
    blocks = range(len(model.blocks))
    return [Update(Params(tuple(blocks)))], [Update(Params(b)) for b in blocks if model.blocks[b].parameters]


def _reductions(model: Model) -> list[Reduce]:
    """Add zero times the parameters to the gradients: of everything, and of the smallest block that has some."""
    every = tuple(range(len(model.blocks)))
    least = min((block for block in every if model.blocks[block].parameters), key=lambda b: model.blocks[b].parameters)
    return [Reduce(Grads(blocks), Params(blocks), scale=0.0) for blocks in ((least,), every)]


def measure_blocks(problem: Problem, ranks: int, seed: int = 0) -> Model:
    """The problem's model with measured times: every instruction at several numbers of samples."""
    model = problem.model()
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for part in (part for part in PARTS if part <= model.batch):
        run = execute(Alone(part), problem, ranks, STEPS, seed, progress=False)
        samples = float(bounds(model.batch, 0, part)[1])
        for text, seconds in durations(run).items():
            points[text].append((samples, seconds))

    def work(text: str) -> Work:
        return Measured(tuple(sorted(points[text])))

    blocks = tuple(
        replace(block, forward=work(f"Forward {index} mb0"), backward=work(f"Backward {index} mb0"))
        for index, block in enumerate(model.blocks)
    )
    times = {text: median(seconds for _, seconds in found) for text, found in points.items()}
    whole_updates, block_updates = _updates(model)
    update = _by_size(model, [(cast(Params, u.params).blocks, times[str(u)]) for u in whole_updates + block_updates])
    reduce = _by_size(model, [(cast(Grads, r.target).blocks, times[str(r)]) for r in _reductions(model)])
    return replace(model, blocks=blocks, load=work("Load mb0"), loss=work("Loss mb0"), update=update, reduce=reduce)


def _by_size(model: Model, times: list[tuple[tuple[int, ...], float]]) -> Work:
    """Seconds against the number of parameters in the blocks that were touched."""
    found = defaultdict(list)
    for blocks, seconds in times:
        found[float(sum(model.blocks[block].parameters for block in blocks))].append(seconds)
    return Measured(tuple((size, median(seconds)) for size, seconds in sorted(found.items())))


def durations(run: Run) -> dict[str, float]:
    """The median time of each computation, from its start to the next start; the first steps are left out."""
    found = defaultdict(list)
    for span, following in _neighbours(run):
        if span.step >= WARM_UP:
            end = following.start if span.step == following.step else span.end
            found[span.instruction].append(end - span.start)
    return {text: median(times) for text, times in found.items()}


def _neighbours(run: Run) -> Iterator[tuple[Span, Span]]:
    lanes = defaultdict(list)
    for span in run.spans:
        if span.stream == COMPUTE and kind(span.instruction) != "Barrier":
            lanes[span.rank].append(span)
    for lane in lanes.values():
        yield from zip(lane, [*lane[1:], lane[-1]._replace(step=-1)])
