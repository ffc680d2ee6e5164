"""Measure this machine, so that the virtual clock predicts it.

Measuring is itself a program: ``Alone`` computes on all ranks at once, ``Probe`` sends and reduces buffers of several
sizes. Both run on the wall clock like any strategy, and the times are read from their spans; so what is measured is
what programs cost here, the interpreter and ranks sharing cores included.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import ClassVar

import numpy as np
import torch

from simulator.cluster import Cluster, Overheads
from simulator.collectives import critical_bytes, rounds
from simulator.model import Measured, Model, Seconds, Work
from simulator.problem import Problem
from simulator.program import AllReduce, Barrier, Compute, Recv, Send, Update
from simulator.rank import Rank
from simulator.run import Run
from simulator.spans import COMPUTE, Span, kind
from simulator.stack import Order, Program
from simulator.strategies.single import gradient
from simulator.values import Named, Params, Value, bounds

from .machine import busy_cores, is_idle
from .running import execute

STEPS = 12
SIZES = (1, 4_096, 65_536, 524_288)
"""Elements of the buffers that are sent, four bytes each."""


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
    """
    busy = busy_cores()
    times = measure_blocks(problem, computing or ranks, seed)
    cluster = measure_network(problem, ranks, seed)
    return Calibration(cluster, replace(problem, times=times), busy)


# ---------------------------------------------------------------- compute


@dataclass(frozen=True)
class Alone(Order):
    """Every rank trains by itself on 1/``part`` of the batch, all at the same time."""

    axis: ClassVar[str | None] = "alone"

    part: int = 1

    def share(self, me: Rank) -> tuple[int, int]:
        return me.at("alone") % self.part, self.part

    def program(self, me: Rank) -> Program:
        for _ in me.steps():
            yield Barrier()
            yield from gradient(me)
            yield Update(Params(me.blocks))


def measure_blocks(problem: Problem, ranks: int, seed: int = 0) -> Model:
    """The problem's model with measured times: every instruction at several numbers of samples."""
    model = problem.model()
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for part in _parts(model.batch):
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
    update = median(seconds for text, found in points.items() if kind(text) == "Update" for _, seconds in found)
    return replace(model, blocks=blocks, load=work("Load mb0"), loss=work("Loss mb0"), update=Seconds(update))


def _parts(batch: int) -> list[int]:
    return [part for part in (1, 2, 4, 8, 16) if part <= batch]


def durations(run: Run) -> dict[str, float]:
    """The median time of each computation, from its start to the next start; the first steps are left out."""
    found = defaultdict(list)
    for span, following in _neighbours(run):
        if span.step == following.step >= 2 or kind(span.instruction) == "Update":
            end = following.start if span.step == following.step else span.end
            found[span.instruction].append(end - span.start)
    return {text: median(times) for text, times in found.items()}


def _neighbours(run: Run) -> Iterator[tuple[Span, Span]]:
    lanes = defaultdict(list)
    for span in run.spans:
        if span.stream == COMPUTE and kind(span.instruction) != "Barrier":
            lanes[span.rank].append(span)
    for lane in lanes.values():
        yield from zip(lane, [*lane[1:], lane[-1]])


# ---------------------------------------------------------------- network


@dataclass(frozen=True)
class Probe(Order):
    """Reduce buffers of several sizes over all ranks, and send them from rank 0 to rank 1 and back."""

    axis: ClassVar[str | None] = "probe"

    sizes: tuple[int, ...] = SIZES

    def program(self, me: Rank) -> Program:
        buffers = [Named("buffer", size) for size in self.sizes]
        for buffer in buffers:
            yield Compute(_zeros(buffer.key), writes=(buffer,))
        for _ in me.steps():
            for buffer in buffers:
                yield Barrier()
                yield AllReduce(buffer, op="sum")
                if me.size("probe") > 1 and me.at("probe") < 2:
                    yield from _echo(me.at("probe"), buffer)


def _echo(position: int, buffer: Value) -> Program:
    there, back = Send(buffer, to=1 - position), Recv(buffer, source=1 - position)
    if position == 0:
        yield there
    yield back
    if position == 1:
        yield there


def _zeros(size: int) -> object:
    def zeros() -> torch.Tensor:
        return torch.zeros(size, dtype=torch.float32)

    return zeros


def measure_network(problem: Problem, ranks: int, seed: int = 0) -> Cluster:
    """This machine's processes as a flat cluster: latency, bandwidth and fixed times, from ``Probe``.

    Small messages are bimodal (the scheduler's time slices), so of every size the lower quartile counts.
    """
    if ranks == 1:
        return Cluster.flat(1, bandwidth=1e9, name="1 process on this machine")
    run = execute(Probe(), problem, ranks, STEPS, seed, progress=False)
    echo, sending, reduce = _echoes(run), _sends(run), _reductions(run)
    one_way, per_byte = _line([(4 * size, seconds / 2) for size, seconds in echo.items()])
    message = min(sending.values())
    latency = max(one_way - message, 1e-9)
    fixed, per_critical = _line([(critical_bytes(AllReduce, ranks, 4 * s), seconds) for s, seconds in reduce.items()])
    collective = max(fixed - rounds(AllReduce, ranks) * latency, 0.0)
    return Cluster.flat(
        ranks,
        bandwidth=1 / max(per_byte, per_critical, 1e-12),
        latency=latency,
        name=f"{ranks} processes on this machine, as measured",
        overheads=Overheads(collective=collective, message=message),
    )


def _quartiles(found: dict[int, list[float]]) -> dict[int, float]:
    return {size: float(np.quantile(times[2:], 0.25)) for size, times in found.items()}


def _size(span: Span) -> int:
    return int(span.instruction.split("[")[1].split("]")[0])


def _timed(run: Run, name: str) -> dict[int, float]:
    found = defaultdict(list)
    for span in run.spans:
        if kind(span.instruction) == name and span.rank == 0:
            found[_size(span)].append(span.end - span.start)
    return _quartiles(found)


def _reductions(run: Run) -> dict[int, float]:
    return _timed(run, "AllReduce")


def _sends(run: Run) -> dict[int, float]:
    return _timed(run, "Send")


def _echoes(run: Run) -> dict[int, float]:
    """There and back, from rank 0's Send to the end of its Recv."""
    spans = [span for span in run.spans if span.rank == 0 and kind(span.instruction) in ("Send", "Recv")]
    found = defaultdict(list)
    for there, back in zip(spans[::2], spans[1::2]):
        found[_size(there)].append(back.end - there.start)
    return _quartiles(found)


def _line(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Intercept and slope of seconds over bytes, small and large sizes weighing alike."""
    x, y = np.array(points).T
    slope, intercept = np.polyfit(x, y, 1, w=1 / y)
    return max(float(intercept), 0.0), max(float(slope), 0.0)
