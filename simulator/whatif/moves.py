"""How long what moves between ranks takes, in closed form: collectives, and messages between stages."""

from __future__ import annotations

from collections import Counter
from math import fsum, inf
from typing import NamedTuple

from ..cluster import Cluster, Link
from ..collectives import critical_bytes
from ..communicating import Collective
from ..plans import Planner
from .mixes import Mix
from .pipelining import Hops


class Asked(NamedTuple):
    """A collective of ``size`` bytes among ``members``, each ``apart`` from the next; ``beside`` what ranks compute."""

    kind: type[Collective]
    size: float
    members: int
    apart: int = 1
    beside: bool = False


class Moves:
    """The times of one cluster. What was asked once is known."""

    def __init__(self, cluster: Cluster):
        self.cluster = cluster
        self.planners: dict[tuple[int, int], Planner] = {}
        self.times: dict[Asked, float] = {}

    def seconds(self, asked: Asked) -> float:
        """Of a collective, the first of whose members is rank 0, alone on its links."""
        if asked.members == 1 or not asked.size:
            return 0.0
        if asked not in self.times:
            self.times[asked] = self._seconds(asked)
        return self.times[asked]

    def _seconds(self, asked: Asked) -> float:
        kind, size, members, apart, beside = asked
        planner = self.planners.get((members, apart))
        if planner is None:
            planner = self.planners[members, apart] = Planner(self.cluster, range(0, members * apart, apart))
        plan, overheads = planner.best(kind, size), self.cluster.overheads
        passing = critical_bytes(kind, members, size) if self.cluster.plain else size / plan.fraction
        waits = overheads.before(kind, members, passing) + _mean(overheads.collective_delays)
        return waits + beside * overheads.beside + plan.seconds(size)

    def sending(self, size: float) -> float:
        """What a message takes of its sender's time."""
        overheads = self.cluster.overheads
        return overheads.message + size * overheads.message_byte + _mean(overheads.send_delays)

    def hops(self, mix: Mix, size: float) -> Hops:
        """Messages between stages of so many bytes, both ways."""
        passing, latency, slowest = Counter[Link](), 0.0, inf
        for at in range(mix.pipeline if mix.chunks > 1 else mix.pipeline - 1):
            ends = at * mix.data * mix.tensor, (at + 1) % mix.pipeline * mix.data * mix.tensor
            visits = mix.chunks if at + 1 < mix.pipeline else mix.chunks - 1
            for source, target in (ends, ends[::-1]):
                route = self.cluster.route(source, target)
                passing.update(dict.fromkeys(route, visits))
                latency = max(latency, self.cluster.latency(source, target))
                slowest = min([slowest, *map(self.cluster.bandwidth, route)])
        latency += _mean(self.cluster.overheads.message_delays)
        busiest = max((many * size / self.cluster.bandwidth(link) for link, many in passing.items()), default=0.0)
        return Hops(latency + size / slowest, latency + busiest / mix.chunks, busiest)


def _mean(delays: tuple[float, ...]) -> float:
    return fsum(delays) / len(delays) if delays else 0.0
