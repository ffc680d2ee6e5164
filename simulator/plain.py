"""Collectives where nobody asks for more: rings in the order of ranks, binomial broadcasts, exchanges of pairs."""

from __future__ import annotations

from collections import Counter
from functools import cached_property

from .carrying import alone
from .cluster import Cluster
from .collectives import rounds
from .exchanges import plain_script
from .fairness import Path
from .laying import Laid, laid_on
from .program import AllToAll, Broadcast, Collective

FEW = 128
"""Where links differ, exchanges among so many ranks are timed message by message; of more, by their slowest hop."""


class Plain:
    """Those of one group of members; ``root``: a position."""

    def __init__(self, cluster: Cluster, members: tuple[int, ...]):
        self.cluster, self.members = cluster, members
        self.laid: dict[tuple[type[Collective], int], Laid] = {}
        self.trees: dict[int, Path] = {}
        self.alone: dict[tuple[type[Collective], int, float], float] = {}

    def messages(self, kind: type[Collective], root: int) -> Laid:
        """The single messages, on the links."""
        if (kind, root) not in self.laid:
            script = plain_script(kind, self.members, root)
            latencies = [self.cluster.latency(lane.source, lane.target) for lane in script.lanes]
            self.laid[kind, root] = laid_on(self.cluster, script, latencies)
        return self.laid[kind, root]

    def path(self, kind: type[Collective], root: int) -> Path:
        """What every link carries for one byte that passes, of a broadcast for one byte of the value."""
        if kind is not Broadcast:
            return self.ring
        if root not in self.trees:
            paths = self.messages(kind, root).paths
            self.trees[root] = Counter(link for path in paths for link in path)
        return self.trees[root]

    def wait(self, kind: type[Collective], root: int, size: float) -> float:
        """The latency of ``size`` bytes along the path: what all takes longer than the busiest link [s].

        As every message of a ring waits for others of the round before, the slowest hop, its latency included, has the
        whole ring wait in every round.
        """
        if len(self.members) == 1:
            return 0.0
        many, slowest = rounds(kind, len(self.members)), max(busy for busy, _ in self.hops)
        if not size:
            return many * max(latency for _, latency in self.hops)
        if kind is Broadcast:
            return self._alone(kind, root, size) - size * self._slowest(self.path(kind, root))
        if kind is AllToAll and len(self.hops) > 1 and len(self.members) <= FEW:
            return self._alone(kind, root, size) - size * slowest
        return many * max(size / many * busy + latency for busy, latency in self.hops) - size * slowest

    @cached_property
    def ring(self) -> Path:
        """How often a hop of the ring passes each link."""
        return Counter(link for hop in self._around() for link in self.cluster.route(*hop))

    @cached_property
    def hops(self) -> frozenset[tuple[float, float]]:
        """Of what kinds hops of the ring are: seconds for a byte, while all others are busy too; latency."""
        busy = {link: times / self.cluster.bandwidth(link) for link, times in self.ring.items()}
        routes = [(self.cluster.route(*hop), self.cluster.latency(*hop)) for hop in self._around()]
        return frozenset((max(map(busy.__getitem__, route), default=0.0), latency) for route, latency in routes)

    def _around(self) -> list[tuple[int, int]]:
        return list(zip(self.members, (*self.members[1:], self.members[0]))) if len(self.members) > 1 else []

    def _slowest(self, path: Path) -> float:
        return max((times / self.cluster.bandwidth(link) for link, times in path.items()), default=0.0)

    def _alone(self, kind: type[Collective], root: int, size: float) -> float:
        key = kind, root, size
        if key not in self.alone:
            self.alone[key] = alone(self.messages(kind, root), size)
        return self.alone[key]
