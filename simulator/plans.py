"""What a collective costs on a cluster: its algorithm laid over the links, and the choice between several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from .algorithms import Stage, stages_of, usable
from .cluster import Cluster, Link
from .exchanges import script_of
from .lanes import Script
from .program import Collective


@dataclass(frozen=True)
class Protocol:
    """How messages are packed: what they cost in software, and which part of what passes a link is data.

    ``base`` [s] once, ``inside`` and ``between`` [s] for each message within a machine and between machines; links that
    take longer count instead.
    """

    name: str = ""
    base: float = 0.0
    inside: float = 0.0
    between: float = 0.0
    fraction: float = 1.0


PLAIN = Protocol()


@dataclass(frozen=True, eq=False)
class Plan:
    """A collective on a cluster. ``stages``: (seconds of latency, bytes per link for one byte of the value).

    ``sent``: bytes that each member sends for one byte of the value, in the order of the members. ``base`` [s]: what
    the first latency has once, whatever is sent.
    """

    name: str
    stages: tuple[tuple[float, Mapping[Link, float]], ...]
    sent: tuple[float, ...]
    latency: float
    slowness: float
    fraction: float = 1.0
    algorithm: str = "ring"
    base: float = 0.0

    def seconds(self, size: float) -> float:
        """How long it takes for a value of ``size`` bytes, alone on its links."""
        return self.latency + size / self.fraction * self.slowness


class Planner:
    """The plans of one group of members, made when they are needed."""

    def __init__(self, cluster: Cluster, members: Sequence[int]):
        self.cluster, self.members = cluster, members
        self.known: dict[tuple[type[Collective], int], list[Plan]] = {}

    def best(self, kind: type[Collective], size: float, root: int = 0) -> Plan:
        """The plan that is soonest done, among those of the cluster's algorithm. ``root``: a position."""
        plans = self.known.get((kind, root))
        if plans is None:
            plans = self.known[kind, root] = list(self._plans(kind, root))
        return plans[0] if len(plans) == 1 else min(plans, key=lambda plan: plan.seconds(size))

    def script(self, plan: Plan, kind: type[Collective], root: int, pieces: int) -> Script:
        """The single messages of a plan; ``pieces``: of what goes along chains and trees."""
        return script_of(plan.algorithm, kind, self.machines, self.rings, self.axes, self.members[root], pieces)

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
            found += [self._plan(algorithm, protocol, stages, paths) for protocol in self._protocols(algorithm)]
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

    def _plan(self, name: str, protocol: Protocol, stages: Sequence[Stage], paths: Sequence[dict[Link, float]]) -> Plan:
        inside, between = max(self.latencies[0], protocol.inside), max(self.latencies[1], protocol.between)
        waits = [stage.inside * inside + stage.between * between for stage in stages]
        waits[0] += protocol.base
        sent = dict.fromkeys(self.members, 0.0)
        for stage in stages:
            for (source, _), share in stage.traffic.items():
                sent[source] += share
        slowness = sum(_slowness(path, self.cluster.bandwidth) for path in paths)
        told = f"{name} with {protocol.name}" if protocol.name else name
        every = tuple(zip(waits, paths)), tuple(sent.values()), sum(waits), slowness, protocol.fraction
        return Plan(told, *every, name, protocol.base)


def protocols(algorithm: str) -> tuple[Protocol, ...]:
    """What NCCL chooses from for an algorithm, by its own tables; its corrections for middle sizes are left out."""
    from .catalog import own

    rows = [entry for entry in own("nccl").values() if entry.texts["algorithm"] == algorithm]
    return tuple(
        Protocol(
            row.texts["protocol"], row["base_latency"], row["inside_latency"], row["between_latency"], row["bandwidth"]
        )
        for row in rows
    )


def _slowness(path: Mapping[Link, float], bandwidth: Callable[[Link], float]) -> float:
    """Seconds per byte of the value, on the busiest link."""
    return max((share / bandwidth(link) for link, share in path.items()), default=0.0)
