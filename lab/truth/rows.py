"""A published measurement and how to run the same under the virtual clock."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import simulator as sim
from simulator import Pipeline
from simulator.cluster import Cluster, Overheads
from simulator.clusters.machines import dgx
from simulator.stack import Stack

from .machines import Machines

HERE = Path(__file__).parent / "measured"
QUICK = Overheads()
"""Software that adds nothing to collectives."""


class Shape(Protocol):
    """What a model is made of: a transformer, or what replaces some of its parts."""

    @property
    def layers(self) -> int: ...

    def model(self) -> sim.Model: ...


@dataclass(frozen=True)
class Knobs:
    """What a calibration may change of a device; None: as the catalogue has it.

    - ``dispatch`` [s]: what a program takes to issue one operation. Zero-shot: nothing, the device never waits.
    - ``efficiency``: the share of the peak that large products reach.
    """

    dispatch: float = 0.0
    efficiency: float | None = None

    def on(self, cluster: Cluster) -> Cluster:
        """The cluster with such devices."""
        changes: dict[str, Any] = {"dispatch": self.dispatch}
        if self.efficiency is not None:
            changes["efficiency"] = self.efficiency
        return replace(cluster, device=replace(cluster.device, **changes))


ZERO_SHOT = Knobs()
"""Nothing is fitted to training runs."""


@dataclass(frozen=True)
class Setup:
    """A run: a model of some ``shape``, ``batch`` samples a step, a strategy, and a cluster by name and knobs.

    ``device`` of the catalogue, and the network ``card`` that each A100 has, where they are not those of the cluster;
    ``overheads``: what software adds to collectives; ``cluster``: machines of which there is no preset tell their own.
    """

    shape: Shape
    batch: int
    strategy: Stack
    cluster: str | Machines
    size: tuple[tuple[str, int], ...]
    device: str | None = None
    card: str | None = None
    overheads: Overheads = QUICK

    def seconds(self, knobs: Knobs = ZERO_SHOT) -> float:
        """The predicted time of a step [s].

        Once a pipeline is full, a step takes as much longer for each microbatch as for the last one: of many, a few
        are simulated, and twice as many.
        """
        few, many = max(2, self.stages), self.strategy.order.pieces
        if many <= 3 * few:
            return self._seconds(knobs, many)
        short, longer = (self._seconds(knobs, microbatches) for microbatches in (few, 2 * few))
        return longer + (longer - short) * (many - 2 * few) / few

    def _seconds(self, knobs: Knobs, microbatches: int) -> float:
        """The time of a step of so many microbatches, each as large as it is [s]."""
        order: Any = self.strategy.order
        strategy = replace(self.strategy, order=replace(order, microbatches=microbatches))
        batch = self.batch * microbatches // order.pieces
        model, machines = self.shape.model(), self.machines(knobs)
        return sim.simulate(strategy, model, machines, steps=1, batch=batch, fold="always", fit=False).makespan

    @property
    def work(self) -> float:
        """How much there is to simulate, roughly: layers times microbatches."""
        return float(self.shape.layers * min(self.strategy.order.pieces, 3 * self.stages))

    @property
    def stages(self) -> int:
        """Of the pipeline; 1 without."""
        order = self.strategy.order
        return (order.stages if isinstance(order, Pipeline) else None) or 1

    def machines(self, knobs: Knobs = ZERO_SHOT) -> Cluster:
        """The cluster."""
        return replace(
            knobs.on(_cluster(self.cluster, self.size, self.device, self.card)), overheads=self.overheads
        )


class Predicted(Protocol):
    """What gives the number that a row measured: the seconds of a Setup, or what follows from several."""

    @property
    def work(self) -> float: ...

    def seconds(self, knobs: Knobs = ZERO_SHOT) -> float: ...


@dataclass(frozen=True)
class Row:
    """What somebody measured: ``measured`` [s] per step of ``model``, a group of rows; ``name`` tells the row apart."""

    name: str
    model: str
    measured: float
    setup: Predicted


def table(name: str) -> Iterator[Mapping[str, str]]:
    """The lines of one of the files in ``measured``."""
    with (HERE / f"{name}.csv").open(newline="") as lines:
        yield from csv.DictReader(lines)


@cache
def _cluster(name: str | Machines, size: tuple[tuple[str, int], ...], device: str | None, card: str | None) -> Cluster:
    knobs: dict[str, Any] = dict(size)
    if isinstance(name, Machines):
        return name.cluster(**knobs)
    if card is not None:
        return dgx("a100-sxm-80gb", card, "pcie4-x16")(**knobs)
    return sim.cluster(name, device=device, **knobs)
