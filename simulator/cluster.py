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
from .clusters.slowed import Where, slowed
from .clusters.star import Star
from .clusters.subset import subset
from .clusters.wiring import Link, Speed, Wiring
from .spans import COMPUTE
from .work import Measured

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["ALGORITHMS", "Cluster", "Device", "Link", "Overheads", "check_ranks", "cluster"]

ALGORITHMS = ("ring", "tree", "hierarchical", "direct", "auto")
KNOBS = ("device", "devices", "algorithm", "library", "overheads")
"""What every way to make a cluster takes."""


@dataclass(frozen=True)
class Overheads:
    """What a real machine adds to latency and bandwidth; nothing unless measured.

    - ``collective`` [s]: before a collective moves its first byte. ``collectives``: what it was measured to be for some
      types and numbers of members, by the bytes that pass one rank's link; it stands in the place of ``collective``.
    - ``message`` [s], ``message_byte`` [s/B]: what a Send takes of the sender's time, and what each of its bytes does.
    - ``rendezvous``: bytes move only when the receiver waits, as with gloo: who waits late pays one latency more.
    - ``beside`` [s]: what a collective or a Recv takes longer on a stream, beside a program that computes: threads of
      an interpreter wait for each other.
    - ``send_delays``, ``message_delays``, ``collective_delays`` [s]: extra delays, as often as they were measured;
      every Send, message on its way, or collective draws one with the seed of the run. Operating systems make them.
    """

    collective: float = 0.0
    message: float = 0.0
    message_byte: float = 0.0
    rendezvous: bool = False
    send_delays: tuple[float, ...] = ()
    message_delays: tuple[float, ...] = ()
    collective_delays: tuple[float, ...] = ()
    collectives: tuple[tuple[str, int, Measured], ...] = ()
    beside: float = 0.0

    @property
    def random(self) -> bool:
        """Whether something is drawn."""
        return bool(self.send_delays or self.message_delays or self.collective_delays)

    def on(self, stream: str) -> float:
        """What something takes longer on a stream than in the program itself [s]."""
        return 0.0 if stream == COMPUTE else self.beside

    def before(self, kind: type[object], members: int, size: float) -> float:
        """Seconds before a collective moves its first byte; ``size`` [B] is what passes one rank's link.

        >>> from simulator import AllReduce
        >>> measured = Measured(((8.0, 1e-3), (1008.0, 2e-3)))
        >>> Overheads(collectives=(("AllReduce", 2, measured),)).before(AllReduce, 2, 508.0)
        0.0015
        """
        known = next((work for name, n, work in self.collectives if name == kind.__name__ and n == members), None)
        return self.collective if known is None else known.of(size, Device())


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
    overheads: Overheads = Overheads()
    devices: tuple[Device, ...] = ()
    algorithm: str = "ring"
    library: str | None = None
    _routes: dict[tuple[int, int], tuple[Link, ...]] = field(default_factory=dict, init=False, repr=False)
    _speeds: dict[Link, float] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranks", check_ranks(self.ranks))
        given: Any = self.wiring
        if not isinstance(given, Wiring):
            object.__setattr__(self, "wiring", Graph(self.ranks, given))
        if self.wiring.ranks != self.ranks:
            raise ValueError(
                f"a cluster has as many ranks as its wiring; got ranks={self.ranks} on a wiring of"
                f" {self.wiring.ranks}: make another cluster, or take some of its ranks with cluster.subset(range(…))"
            )
        object.__setattr__(self, "device", _device(self.device))
        every = checks.several("devices", self.devices, "a sequence of Devices, one for each rank")
        object.__setattr__(self, "devices", tuple(map(_device, every)))
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
        name = name or f"{ranks} ranks on one switch, {bandwidth:g} B/s, {latency:g} s"
        given = {"device": device or Device(), "overheads": overheads or Overheads(), **knobs}
        return instead(cls(name, ranks, Star(ranks, each, each)), given)

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


def _device(one: Device | str) -> Device:
    """A device, or the one of the catalogue that has this key."""
    if isinstance(one, str):
        from .catalog import device

        return device(one)
    checks.kind("device", one, Device, 'a Device, or the key of one, such as "a100-sxm-80gb"')
    return one


def instead(cluster: Cluster, knobs: Mapping[str, Any]) -> Cluster:
    """A cluster with some of the ``KNOBS`` in the place of its own. Raises ValueError for others.

    ``device`` is one for all ranks, whatever they had, or a list with one for each; ``library=None`` is none.

    >>> two = instead(Cluster.flat(2, 1e9), dict(device=["a100-sxm-80gb", "h100-sxm"], algorithm="tree"))
    >>> two.device_of(1).name, two.algorithm
    ('NVIDIA H100 SXM', 'tree')
    """
    if unknown := [name for name in knobs if name not in KNOBS]:
        raise ValueError(f"every cluster takes {', '.join(KNOBS)}; got {', '.join(unknown)}")
    fields = dict(knobs)
    if "device" in fields:
        chosen = fields["device"]
        every = tuple(chosen) if isinstance(chosen, (list, tuple)) and chosen else (chosen,)
        fields = {"devices": every if len(every) > 1 else (), **fields, "device": every[0]}
    return replace(cluster, **fields) if fields else cluster


def check_ranks(ranks: int) -> int:
    """Refuse what is no number of ranks."""
    return checks.whole("ranks", ranks, least=1)


def cluster(
    name: str,
    ranks: int | None = None,
    device: Device | str | Sequence[Device] | None = None,
    algorithm: str | None = None,
    overheads: Overheads | None = None,
    **knobs: Any,
) -> Cluster:
    """A cluster by name; ``clusters.presets.presets()`` lists names and knobs.

    - ``ranks``: how many, where the preset does not count ``nodes``.
    - ``device``: what computes, instead of the preset's own; a name from the catalogue, or one for each rank.
    - ``algorithm``, ``overheads``: as of a Cluster, instead of the preset's own.
    - ``knobs``: of the preset; and ``library``, ``devices``, as of a Cluster, instead of its own.

    >>> print(cluster("ideal", ranks=4), cluster("dgx-h100", nodes=2).ranks, sep=", ")
    4 ranks on an ideal network, 16
    >>> cluster("single-switch", ranks=4, library="nccl").library, cluster("dgx-h100", nodes=2, library=None).library
    ('nccl', None)
    """
    from .clusters.presets import made

    given: Mapping[str, Any] = dict(ranks=ranks, device=device, algorithm=algorithm, overheads=overheads)
    return made(name, {**{key: value for key, value in given.items() if value is not None}, **knobs})
