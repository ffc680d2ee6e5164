"""Where a program runs: devices, joined by links that are routed and shared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Any

from . import checks
from .clusters.device import Device
from .clusters.graph import Graph, built, directed, hops, whole
from .clusters.knobs import check_ranks, device_of, instead, many
from .clusters.overheads import Overheads
from .clusters.slowed import Where, slowed
from .clusters.star import Star
from .clusters.subset import subset
from .clusters.wiring import Link, Speed, Wiring

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["ALGORITHMS", "Cluster", "Device", "Link", "Overheads", "check_ranks"]

ALGORITHMS = ("ring", "tree", "hierarchical", "direct", "auto")


@dataclass(frozen=True, eq=False)
class Cluster:
    """Ranks 0 … ranks−1, joined by links that carry ``bandwidth`` [B/s per direction] and ``latency`` [s].

    - ``wiring``: which links there are and which of them a message takes; or a directed networkx graph.
    - ``device``: what computes on every rank; ``devices``, one per rank, where they differ. Keys of the catalogue are
      looked up.
    - ``algorithm`` of collectives: "ring", "tree" (all-reduce only), "hierarchical" (machines of equally many ranks),
      "direct" (everybody to everybody), or "auto": the one that is soonest done, by size and wiring; with
      ``library="nccl"`` the one that NCCL's own tuning chooses, which need not be that. Where one does not apply, it is
      a ring.
    - ``library``: whose protocols and software latencies collectives have: "nccl", or None for those of the links.

    Make one with ``Cluster.flat``, ``Cluster.from_graph``, ``cluster("dgx-a100", nodes=16)`` or ``lab.calibrate``.
    """

    name: str
    ranks: int
    wiring: Wiring
    device: Device = field(default_factory=Device)
    overheads: Overheads = field(default_factory=Overheads)
    devices: tuple[Device, ...] = ()
    algorithm: str = "ring"
    library: str | None = None
    _routes: dict[tuple[int, int], tuple[Link, ...]] = field(default_factory=dict, init=False, repr=False)
    _speeds: dict[Link, float] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        checks.kind("name", self.name, str, "a text, what the cluster is called in tables")
        checks.kind("overheads", self.overheads, Overheads, "Overheads, such as Overheads(message=1e-5)")
        object.__setattr__(self, "ranks", check_ranks(self.ranks))
        given: Any = self.wiring
        if not isinstance(given, Wiring):
            object.__setattr__(self, "wiring", Graph(self.ranks, given))
        if self.wiring.ranks != self.ranks:
            raise ValueError(
                f"a cluster has as many ranks as its wiring; got ranks={self.ranks} on a wiring of"
                f" {self.wiring.ranks}: make another cluster, or take some of its ranks with cluster.subset(range(…))"
            )
        object.__setattr__(self, "device", device_of(self.device))
        every = checks.several("devices", self.devices, "a sequence of Devices, one for each rank")
        object.__setattr__(self, "devices", tuple(map(device_of, every)))
        if self.devices and len(self.devices) != self.ranks:
            raise ValueError(f"devices has one for each of {self.ranks} ranks; got {len(self.devices)}")
        if self.algorithm not in ALGORITHMS:
            names = ", ".join(map(repr, ALGORITHMS))
            raise ValueError(f"algorithm is one of {names}; got algorithm={self.algorithm!r}")
        if self.library not in (None, "nccl"):
            raise ValueError(f"library is 'nccl' or None; got library={self.library!r}")

    @classmethod
    def flat(
        cls,
        ranks: int,
        bandwidth: float,
        latency: float = 0.0,
        device: Device | str | Sequence[Device | str] | None = None,
        name: str | None = None,
        overheads: Overheads | None = None,
        **knobs: Any,
    ) -> Cluster:
        """All ranks on one switch that is never the bottleneck.

        Each rank sends ``bandwidth`` and receives ``bandwidth`` [B/s] at once; a message takes ``latency`` [s] from
        rank to rank, plus its bytes over the bandwidth. ``knobs``: ``algorithm``, ``library``, ``devices``, as of a
        Cluster.

        >>> Cluster.flat(ranks=8, bandwidth=12.5e9, latency=10e-6).latency(0, 7)
        1e-05
        """
        ranks = check_ranks(ranks)
        if bandwidth != inf:
            bandwidth = checks.number("bandwidth", bandwidth, above=0, of="in bytes per second")
        latency = checks.number("latency", latency, least=0, of="in seconds")
        each = (Speed(bandwidth, latency / 2),)
        name = name or f"{many(ranks)} on one switch, {bandwidth:g} B/s, {latency:g} s"
        given = {name: one for name, one in (("device", device), ("overheads", overheads)) if one is not None}
        return instead(cls(name, ranks, Star(ranks, each, each)), given | knobs)

    @classmethod
    def from_graph(cls, graph: nx.Graph, name: str | None = None, seed: int = 0, **knobs: Any) -> Cluster:
        """A cluster of one's own: a networkx graph whose nodes 0, 1, 2, … are ranks; all others are switches.

        - ``graph``: edges carry ``bandwidth`` [B/s per direction] and ``latency`` [s], and, if data cannot have all of
          the bandwidth, ``efficiency``; ranks with the same ``machine`` sit in one. An undirected edge is two links.
        - ``seed``: which of several equally good ways the messages between two ranks take.
        - ``knobs``: ``device``, ``devices``, ``overheads``, ``algorithm``, ``library``, as of a Cluster.

        Edges and nodes may carry anything else, such as "weight", but no name that looks like one of these mistyped.

        >>> graph = nx.Graph()
        >>> graph.add_edge(0, "switch", bandwidth=10e9, latency=1e-6)
        >>> graph.add_edge("switch", 1, bandwidth=5e9, latency=1e-6)
        >>> pair = Cluster.from_graph(graph)
        >>> pair.ranks, pair.route(0, 1), pair.latency(0, 1)
        (2, ((0, 'switch'), ('switch', 1)), 2e-06)
        """
        ranks, both_ways = directed(graph)
        return instead(cls(name or f"a network of {ranks} ranks", ranks, whole(ranks, both_ways, seed)), knobs)

    @cached_property
    def graph(self) -> nx.DiGraph:
        """All links, as a directed networkx graph; built when it is asked for."""
        return built(self.wiring)

    def route(self, source: int, target: int) -> tuple[Link, ...]:
        """The links from one rank to another: a path of least latency, always the same for the same ranks."""
        known = self._routes.get((source, target))
        if known is None:
            known = self._routes[source, target] = hops(self.wiring.path(source, target))
        return known

    def latency(self, source: int, target: int) -> float:
        """Seconds that the first byte needs from one rank to another."""
        speed = self.wiring.speed
        return sum(speed(link).latency for link in self.route(source, target))

    def bandwidth(self, link: Link) -> float:
        """Bytes per second that data can have of one link, in its direction."""
        known = self._speeds.get(link)
        if known is None:
            speed = self.wiring.speed(link)
            known = self._speeds[link] = float(speed.bandwidth * speed.efficiency)
        return known

    def device_of(self, rank: int) -> Device:
        """What computes on a rank."""
        return self.devices[rank] if self.devices else self.device

    def slowed(self, factors: Mapping[Where, float]) -> Cluster:
        """The same with slow links. ``{3: 4.0}``: those of rank 3 have a quarter of their bandwidth, both ways.

        A pair of nodes is one link, one way. Raises ValueError for what is not there, and for factors below 1.

        >>> slow = Cluster.flat(ranks=4, bandwidth=1e9).slowed({3: 4.0})
        >>> slow.bandwidth((3, "switch")), slow.bandwidth((2, "switch"))
        (250000000.0, 1000000000.0)
        """
        wiring = slowed(self.wiring, factors)
        names = ", ".join(f"{where} by {factor:g}" for where, factor in list(factors.items())[:4])
        more = f", {len(factors) - 4} more" if len(factors) > 4 else ""
        return replace(self, name=f"{self.name}, slowed: {names}{more}", wiring=wiring) if factors else self

    def subset(self, ranks: Iterable[int]) -> Cluster:
        """Some of its ranks, numbered from 0; messages between them take the links that they take in the whole.

        >>> cluster("dgx-a100", nodes=4).subset(range(8, 24)).ranks
        16
        """
        wiring = subset(self.wiring, checks.several("ranks", ranks, "an iterable of ranks, such as range(8)"))
        devices = tuple(self.devices[rank] for rank in wiring.chosen) if self.devices else ()
        name = f"{wiring.ranks} of {self.name}"
        return replace(self, name=name, ranks=wiring.ranks, wiring=wiring, devices=devices)

    @cached_property
    def plain(self) -> bool:
        """Whether nobody asks for more than rings in the order of ranks, and binomial trees for broadcasts."""
        return self.algorithm == "ring" and self.library is None and not self.wiring.grouped

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<Cluster of {self.ranks} rank{'s' if self.ranks > 1 else ''}: {self.name}>"
