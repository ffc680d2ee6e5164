"""Where a program runs: devices joined by links, as a directed networkx graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, Any, cast

from . import checks

if TYPE_CHECKING:
    import networkx as nx

Link = tuple[Any, Any]


@dataclass(frozen=True)
class Device:
    """What computes. ``flops``: achieved speed [FLOP/s]."""

    name: str = "a modest processor core"
    flops: float = 50e9

    def __post_init__(self) -> None:
        checks.number("flops", self.flops, above=0, of="in FLOP per second")


@dataclass(frozen=True)
class Overheads:
    """What a real machine adds to latency and bandwidth; nothing unless measured.

    - ``collective`` [s]: before a collective moves its first byte.
    - ``message`` [s], ``message_byte`` [s/B]: what a Send takes of the sender's time, and what each of its bytes does.
    - ``rendezvous``: bytes move only when the receiver waits, as with gloo: who waits late pays one latency more.
    - ``message_delays``, ``collective_delays`` [s]: extra delays, as often as they were measured; every message, or
      collective, draws one of them with the seed of the run. Operating systems make them.
    """

    collective: float = 0.0
    message: float = 0.0
    message_byte: float = 0.0
    rendezvous: bool = False
    message_delays: tuple[float, ...] = ()
    collective_delays: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Cluster:
    """Ranks 0 … ranks−1 as nodes of a graph whose edges carry ``bandwidth`` [B/s per direction] and ``latency`` [s].

    Make one with ``Cluster.flat``, ``cluster("ideal", …)`` or ``lab.calibrate``.
    """

    name: str
    ranks: int
    graph: nx.DiGraph
    device: Device = Device()
    overheads: Overheads = Overheads()
    routes: dict[tuple[int, int], tuple[Link, ...]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check_ranks(self.ranks)
        missing = [rank for rank in range(self.ranks) if rank not in self.graph]
        if missing:
            raise ValueError(f"ranks are nodes of the graph, named 0 to {self.ranks - 1}; missing are {missing[:8]}")
        for source, target, link in self.graph.edges(data=True):
            for name in ("bandwidth", "latency"):
                if not link.get(name, -1) >= 0:
                    raise ValueError(f"a link has a {name} of 0 or more; {source!r} -> {target!r} has {link.get(name)}")

    @classmethod
    def flat(
        cls,
        ranks: int,
        bandwidth: float,
        latency: float = 0.0,
        device: Device | None = None,
        name: str | None = None,
        overheads: Overheads | None = None,
    ) -> Cluster:
        """All ranks on one switch that is never the bottleneck.

        Each rank sends ``bandwidth`` and receives ``bandwidth`` [B/s] at once; a message takes ``latency`` [s] from
        rank to rank, plus its bytes over the bandwidth.

        >>> Cluster.flat(ranks=8, bandwidth=12.5e9, latency=10e-6).latency(0, 7)
        1e-05
        """
        check_ranks(ranks)
        if bandwidth != inf:
            checks.number("bandwidth", bandwidth, above=0, of="in bytes per second")
        checks.number("latency", latency, least=0, of="in seconds")
        import networkx as nx  # takes half of the time in which everything else here is imported

        graph = nx.DiGraph()
        for rank in range(ranks):
            graph.add_edge(rank, "switch", bandwidth=bandwidth, latency=latency / 2)
            graph.add_edge("switch", rank, bandwidth=bandwidth, latency=latency / 2)
        name = name or f"{ranks} ranks on one switch, {bandwidth:g} B/s, {latency:g} s"
        return cls(name, ranks, graph, device or Device(), overheads or Overheads())

    def route(self, source: int, target: int) -> tuple[Link, ...]:
        """The links from one rank to another: the path of least latency."""
        known = self.routes.get((source, target))
        if known is None:
            import networkx as nx

            try:
                nodes = cast("list[int]", nx.shortest_path(self.graph, source, target, weight="latency"))
            except nx.NetworkXException as error:
                raise ValueError(f"every rank reaches every other over links; {error}") from None
            known = self.routes[source, target] = tuple(pairwise(nodes))
        return known

    def latency(self, source: int, target: int) -> float:
        """Seconds that the first byte needs from one rank to another."""
        return sum(self.graph.edges[link]["latency"] for link in self.route(source, target))

    def bandwidth(self, link: Link) -> float:
        """Bytes per second over one link, in its direction."""
        return float(self.graph.edges[link]["bandwidth"])

    def __str__(self) -> str:
        return self.name


def check_ranks(ranks: int) -> int:
    """Refuse what is no number of ranks."""
    return checks.whole("ranks", ranks, least=1)


def _ideal(ranks: int, device: Device | None = None) -> Cluster:
    return Cluster.flat(ranks, inf, 0.0, device, name=f"{ranks} ranks on an ideal network")


PRESETS = {"ideal": _ideal}


def cluster(name: str, ranks: int, device: Device | None = None) -> Cluster:
    """A cluster by name. ``"ideal"``: compute as given, the network free.

    >>> print(cluster("ideal", ranks=4))
    4 ranks on an ideal network
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"no cluster is called {name!r}; the names are {', '.join(map(repr, PRESETS))}")
    return PRESETS[name](ranks, device)
