"""What a collective costs on a cluster: its algorithm laid over the links, and the choice between several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from math import ceil
from typing import NamedTuple

from .algorithms import Stage, stages_of, usable
from .cluster import Cluster, Link
from .exchanges import script_of
from .lanes import Script
from .laying import Laid, laid_on
from .plan import Plan
from .program import Collective
from .protocols import PLAIN, Protocol, protocols

PIECES = 64
"""A piece that goes along a chain or a tree is so much less of the value, for each hop, unless below LEAST [B]."""
LEAST = 512
MANY = 4096
"""Where links differ, stages of so many hops are timed message by message; of more, each by its busiest link."""


class Algorithm(NamedTuple):
    """One on the links of a cluster: what its plans share, whatever their protocols."""

    name: str
    stages: Sequence[Stage]
    paths: Sequence[dict[Link, float]]
    sent: tuple[float, ...]
    slowness: float
    script: Callable[[float], Script]
    played: bool


class Planner:
    """The plans of one group of members, made when they are needed."""

    def __init__(self, cluster: Cluster, members: Sequence[int]):
        self.cluster, self.members = cluster, members
        self.known: dict[tuple[type[Collective], int], list[Plan]] = {}
        self.chosen: dict[tuple[type[Collective], float, int], Plan] = {}
        self.scripts: dict[tuple[str, type[Collective], int, int], Script] = {}
        self.laid: dict[tuple[tuple[float, ...], int], Laid] = {}

    def best(self, kind: type[Collective], size: float, root: int = 0) -> Plan:
        """The plan that is soonest done, among those of the cluster's algorithm. ``root``: a position.

        NCCL goes by its tables, which know of no ``filling``.
        """
        asked = kind, size, root
        if asked not in self.chosen:
            self.chosen[asked] = self._soonest(*asked)
        return self.chosen[asked]

    def _soonest(self, kind: type[Collective], size: float, root: int) -> Plan:
        if (kind, root) not in self.known:
            self.known[kind, root] = list(self._plans(kind, root))
        plans = self.known[kind, root]
        if len(plans) == 1:
            return plans[0]
        return min(plans, key=lambda plan: plan.promised(size) if self.cluster.library else plan.seconds(size))

    @cached_property
    def machines(self) -> list[list[int]]:
        """The members by machine."""
        return self.cluster.wiring.machines(self.members)

    @cached_property
    def rings(self) -> list[list[int]]:
        """The rings through all members."""
        return self.cluster.wiring.rings(self.members)

    @cached_property
    def axes(self) -> list[list[list[int]]]:
        """The rings along the dimensions of a torus."""
        return self.cluster.wiring.axes(self.members)

    @cached_property
    def latencies(self) -> tuple[float, float]:
        """Of the slowest hop within a machine, and between machines [s]."""
        found = [0.0, 0.0]
        where = {rank: at for at, machine in enumerate(self.machines) for rank in machine}
        for order in self.rings:
            for a, b in zip(order, [*order[1:], order[0]]):
                apart = where[a] != where[b]
                found[apart] = max(found[apart], self.cluster.latency(a, b))
        return found[0], found[1]

    def _plans(self, kind: type[Collective], root: int) -> list[Plan]:
        found: list[Plan] = []
        for algorithm in self._algorithms(kind):
            stages = stages_of(algorithm, kind, self.machines, self.rings, self.axes, self.members[root])
            paths = [self._path(stage) for stage in stages]
            script = partial(self._script, algorithm, kind, root)
            played = stages[0].streams or self._uneven(stages, paths)
            laid = Algorithm(algorithm, stages, paths, self._sent(stages), self._busy(paths), script, played)
            found += [self._plan(laid, protocol) for protocol in self._protocols(algorithm)]
        return found

    def _algorithms(self, kind: type[Collective]) -> list[str]:
        """Those to choose from: NCCL's own are rings and trees; everybody to everybody needs links for it."""
        names = [self.cluster.algorithm]
        if names == ["auto"]:
            names = ["ring", "tree"] if self.cluster.library else ["ring", "tree", "hierarchical"]
            names += ["direct"] if self.cluster.wiring.direct else []
        return list(dict.fromkeys(usable(name, kind, self.machines) for name in names))

    def _protocols(self, algorithm: str) -> tuple[Protocol, ...]:
        if self.cluster.library is None:
            return (PLAIN,)
        return protocols(algorithm if algorithm == "tree" else "ring")

    def _path(self, stage: Stage) -> dict[Link, float]:
        path: dict[Link, float] = {}
        for (source, target), share in stage.traffic.items():
            for link in self.cluster.route(source, target):
                path[link] = path.get(link, 0.0) + share
        return path

    def _sent(self, stages: Sequence[Stage]) -> tuple[float, ...]:
        """What each member sends for one byte of the value."""
        sent = dict.fromkeys(self.members, 0.0)
        for stage in stages:
            for (source, _), share in stage.traffic.items():
                sent[source] += share
        return tuple(sent.values())

    def _busy(self, paths: Sequence[Mapping[Link, float]]) -> float:
        """Seconds per byte of the value, on the busiest link of each stage."""
        return sum(_slowness(path, self.cluster.bandwidth) for path in paths)

    def _plan(self, laid: Algorithm, protocol: Protocol) -> Plan:
        inside, between = max(self.latencies[0], protocol.inside), max(self.latencies[1], protocol.between)
        waits = [stage.inside * inside + stage.between * between for stage in laid.stages]
        with_base = [waits[0] + protocol.base, *waits[1:]]
        told = f"{laid.name} with {protocol.name}" if protocol.name else laid.name
        stages, lay = tuple(zip(with_base, laid.paths)), partial(self._lay, waits, laid.script)
        costs = sum(with_base), laid.slowness, protocol.fraction, protocol.base
        return Plan(told, stages, laid.sent, *costs, lay, laid.played, protocol.corrections)

    def _uneven(self, stages: Sequence[Stage], paths: Sequence[Mapping[Link, float]]) -> bool:
        """Whether there are several stages, and some ranks are sooner done with one of them than others."""
        if len(stages) == 1 or sum(len(stage.traffic) for stage in stages) > MANY:
            return False
        for stage, path in zip(stages, paths):
            slowest: dict[int, float] = {}
            for hop in stage.traffic:
                busy = _slowness({link: path[link] for link in self.cluster.route(*hop)}, self.cluster.bandwidth)
                slowest |= {rank: max(busy, slowest.get(rank, 0.0)) for rank in hop}
            if slowest and min(slowest.values()) < max(slowest.values()) * (1 - 1e-9):
                return True
        return False

    def _lay(self, waits: Sequence[float], script: Callable[[float], Script], size: float) -> Laid:
        """The messages of a plan: those of a lane share its latency, or those that follow one another in pieces."""
        written = script(size)
        key = tuple(waits), id(written)
        if key not in self.laid:
            latencies = [
                waits[lane.stage] / (written.depths[lane.stage] if lane.streams else lane.count)
                for lane in written.lanes
            ]
            self.laid[key] = laid_on(self.cluster, written, latencies)
        return self.laid[key]

    def _script(self, algorithm: str, kind: type[Collective], root: int, size: float) -> Script:
        """The messages of a value of ``size`` bytes: along chains and trees, pieces."""
        whole = self._in_pieces(algorithm, kind, root, 1)
        if not whole.lanes[0].streams:
            return whole
        largest = max(lane.share for lane in whole.lanes)
        return self._in_pieces(
            algorithm, kind, root, ceil(min(PIECES * whole.depths[0] * largest, largest * size / LEAST))
        )

    def _in_pieces(self, algorithm: str, kind: type[Collective], root: int, pieces: int) -> Script:
        key = algorithm, kind, root, pieces
        if key not in self.scripts:
            wiring = self.machines, self.rings, self.axes
            self.scripts[key] = script_of(algorithm, kind, *wiring, self.members[root], pieces)
        return self.scripts[key]


def _slowness(path: Mapping[Link, float], bandwidth: Callable[[Link], float]) -> float:
    """Seconds per byte of the value, on the busiest link."""
    return max((share / bandwidth(link) for link, share in path.items()), default=0.0)
