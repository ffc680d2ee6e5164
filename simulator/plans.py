"""What a collective costs on a cluster: its algorithm laid over the links, and the choice between several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import ceil

from .algorithms import Stage, stages_of, usable
from .carrying import alone
from .cluster import Cluster, Link
from .exchanges import script_of
from .lanes import Script
from .laying import Laid, laid_on
from .program import Collective


@dataclass(frozen=True)
class Protocol:
    """How messages are packed: what they cost in software, and which part of what passes a link is data.

    ``base`` [s] once, ``inside`` and ``between`` [s] for each message within a machine and between machines; links that
    take longer count instead. ``corrections``: the share of the bandwidth that NCCL expects for values of 64 bytes,
    128, and so on; all of it beyond.
    """

    name: str = ""
    base: float = 0.0
    inside: float = 0.0
    between: float = 0.0
    fraction: float = 1.0
    corrections: tuple[float, ...] = ()


PLAIN = Protocol()
PIECES = 64
"""A piece that goes along a chain or a tree is so much less of the value, for each hop, unless below LEAST [B]."""
LEAST = 512
MANY = 4096
"""Where links differ, stages of so many hops are timed message by message; of more, each by its busiest link."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A collective on a cluster. ``stages``: (seconds of latency, bytes per link for one byte of the value).

    - ``sent``: bytes that each member sends for one byte of the value, in the order of the members.
    - ``base`` [s]: what the first latency has once, whatever is sent.
    - ``lay``: the messages of a value of so many bytes on its way, laid over the links.
    - ``played``: whether these must say how long it takes: those that go in pieces along chains, and stages of which
      some ranks are sooner done than others. ``corrections``: as of its protocol.
    """

    name: str
    stages: tuple[tuple[float, Mapping[Link, float]], ...]
    sent: tuple[float, ...]
    latency: float
    slowness: float
    fraction: float
    base: float
    lay: Callable[[float], Laid]
    played: bool = False
    corrections: tuple[float, ...] = ()
    known: dict[float, float] = field(default_factory=dict, repr=False)

    def seconds(self, size: float) -> float:
        """How long it takes for a value of ``size`` bytes, alone on its links."""
        return self.rated(size) + self.filling(size)

    def rated(self, size: float) -> float:
        """The same without ``filling``: latency, and bytes on the busiest link."""
        return self.latency + size / self.fraction * self.slowness

    def promised(self, size: float) -> float:
        """What NCCL expects it to take, by which it chooses."""
        place = min(int(size) // 64, 2 ** len(self.corrections)).bit_length() - 1
        share = self.corrections[max(place, 0)] if self.corrections and place < len(self.corrections) else 1.0
        return self.latency + size / self.fraction / share * self.slowness

    def filling(self, size: float) -> float:
        """How much longer it takes because pieces reach one link after another, or ranks wait for slow ones [s].

        Less than nothing where some ranks go on while others are in the stage before.
        """
        if not self.played or not size:
            return 0.0
        if size not in self.known:
            wire = size / self.fraction
            played = self.base + alone(self.lay(wire), wire)
            self.known[size] = played - self.rated(size)
        return self.known[size]

    @cached_property
    def together(self) -> Mapping[Link, float]:
        """What every link carries in all stages."""
        found: dict[Link, float] = {}
        for link, share in (one for _, path in self.stages for one in path.items()):
            found[link] = found.get(link, 0.0) + share
        return found


class Planner:
    """The plans of one group of members, made when they are needed."""

    def __init__(self, cluster: Cluster, members: Sequence[int]):
        self.cluster, self.members = cluster, members
        self.known: dict[tuple[type[Collective], int], list[Plan]] = {}
        self.scripts: dict[tuple[str, type[Collective], int, int], Script] = {}
        self.laid: dict[tuple[tuple[float, ...], int], Laid] = {}

    def best(self, kind: type[Collective], size: float, root: int = 0) -> Plan:
        """The plan that is soonest done, among those of the cluster's algorithm. ``root``: a position.

        NCCL goes by its tables, which know of no ``filling``.
        """
        plans = self.known.get((kind, root))
        if plans is None:
            plans = self.known[kind, root] = list(self._plans(kind, root))
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
            found += [self._plan(algorithm, protocol, stages, paths, script) for protocol in self._protocols(algorithm)]
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

    def _plan(
        self,
        name: str,
        protocol: Protocol,
        stages: Sequence[Stage],
        paths: Sequence[dict[Link, float]],
        script: Callable[[float], Script],
    ) -> Plan:
        inside, between = max(self.latencies[0], protocol.inside), max(self.latencies[1], protocol.between)
        waits = [stage.inside * inside + stage.between * between for stage in stages]
        with_base = [waits[0] + protocol.base, *waits[1:]]
        sent = dict.fromkeys(self.members, 0.0)
        for stage in stages:
            for (source, _), share in stage.traffic.items():
                sent[source] += share
        slowness = sum(_slowness(path, self.cluster.bandwidth) for path in paths)
        told = f"{name} with {protocol.name}" if protocol.name else name
        every = tuple(zip(with_base, paths)), tuple(sent.values()), sum(with_base), slowness, protocol.fraction
        lay, asked = partial(self._lay, waits, script), protocol.corrections
        return Plan(told, *every, protocol.base, lay, stages[0].streams or self._uneven(stages, paths), asked)

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


def protocols(algorithm: str) -> tuple[Protocol, ...]:
    """What NCCL chooses from for an algorithm, by its own tables."""
    from .catalog import own

    rows = [entry for entry in own("nccl").values() if entry.texts["algorithm"] == algorithm]
    return tuple(
        Protocol(
            row.texts["protocol"],
            row["base_latency"],
            row["inside_latency"],
            row["between_latency"],
            row["bandwidth"],
            tuple(map(float, row.texts.get("corrections", "").split())),
        )
        for row in rows
    )


def _slowness(path: Mapping[Link, float], bandwidth: Callable[[Link], float]) -> float:
    """Seconds per byte of the value, on the busiest link."""
    return max((share / bandwidth(link) for link, share in path.items()), default=0.0)
