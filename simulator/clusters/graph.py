"""A wiring of one's own: a networkx graph."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import pairwise, permutations
from math import inf
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from .. import checks
from .subset import Subset
from .wiring import Link, Node, Speed, Wiring, choice

if TYPE_CHECKING:
    import networkx as nx

EDGE = ("bandwidth", "latency", "efficiency")
NODE = ("machine",)
"""What edges and nodes are asked for."""
CLOSE = 0.8
"""How much alike a name is to one of these, from 0 to 1, that can only be a slip of the pen."""
Cost = tuple[int, int]
"""Latency [fs], links: whole numbers, so that equal ways compare as equal."""


@dataclass(frozen=True, eq=False)
class Graph(Wiring):
    """A directed graph; ranks are the nodes 0 … ranks−1, edges carry ``bandwidth`` [B/s] and ``latency`` [s].

    An edge may carry ``efficiency``, a node ``machine``. Raises ValueError for edges without bandwidth or latency.
    """

    ranks: int
    graph: nx.DiGraph
    seed: int = 0
    known: dict[Node, dict[Node, tuple[Cost, list[Node]]]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        import networkx as nx

        checks.kind("wiring", self.graph, nx.DiGraph, "a Wiring, or a directed networkx graph; see Cluster.from_graph")
        checks.whole("seed", self.seed, of="of the ways that messages take")
        object.__setattr__(self, "graph", self.graph.copy())  # a user may go on to change the first
        missing = [rank for rank in range(self.ranks) if rank not in self.graph]
        if missing:
            raise ValueError(f"ranks are nodes of the graph, named 0 to {self.ranks - 1}; missing are {missing[:8]}")
        for source, target, link in self.graph.edges(data=True):
            _check(source, target, link)
        _refuse_typos("a link", {name for *_, link in self.graph.edges(data=True) for name in link}, EDGE)
        _refuse_typos("a node", {name for _, node in self.graph.nodes(data=True) for name in node}, NODE)

    def links(self) -> Iterator[Link]:
        return iter(self.graph.edges)

    def speed(self, link: Link) -> Speed:
        edge = self.graph.edges[link]
        return Speed(float(edge["bandwidth"]), float(edge["latency"]), float(edge.get("efficiency", 1.0)))

    def path(self, source: int, target: int) -> Sequence[Node]:
        """Backwards from the target: wherever several nodes are on a best way, source and target choose."""
        if source == target:
            return (source,)
        root, first = self._entry(source)
        before = self._before(root)
        if target not in before:
            raise ValueError(f"every rank reaches every other over links; no way leads from {source} to {target}")
        nodes: list[Node] = [target]
        while nodes[-1] != root:
            options = before[nodes[-1]][1]
            nodes.append(options[choice(source, target, self.seed + len(nodes), len(options))])
        return (*first, *reversed(nodes))

    def machine(self, rank: int) -> Hashable:
        return self.graph.nodes[rank].get("machine", rank)

    @property
    def grouped(self) -> bool:
        return len({self.machine(rank) for rank in range(self.ranks)}) < self.ranks

    @property
    def direct(self) -> bool:
        pairs = self.ranks * (self.ranks - 1)
        enough = 0 < pairs <= self.graph.number_of_edges()
        return enough and all(self.graph.has_edge(*pair) for pair in permutations(range(self.ranks), 2))

    def _entry(self, source: int) -> tuple[Node, tuple[Node, ...]]:
        """A rank with a single link begins where its switch does: ranks of one switch share its tree of ways."""
        out = list(self.graph.successors(source))
        return (out[0], (source,)) if len(out) == 1 else (source, ())

    def _before(self, root: Node) -> dict[Node, tuple[Cost, list[Node]]]:
        """For each node its distance from the root, and all nodes before it on a best way (Dijkstra 1959)."""
        if root in self.known:
            return self.known[root]
        found: dict[Node, tuple[Cost, list[Node]]] = {root: ((0, 0), [])}
        queue: list[tuple[Cost, int, Node]] = [((0, 0), 0, root)]
        count = 0
        while queue:
            cost, _, node = heapq.heappop(queue)
            if cost > found[node][0]:
                continue
            for after, link in self.graph.adj[node].items():
                new = (cost[0] + round(link["latency"] * 1e15), cost[1] + 1)
                if after not in found or new < found[after][0]:
                    found[after], count = (new, [node]), count + 1
                    heapq.heappush(queue, (new, count, after))
                elif new == found[after][0]:
                    found[after][1].append(node)
        self.known[root] = found
        return found


def directed(graph: nx.Graph) -> tuple[int, nx.DiGraph]:
    """How many ranks a user's graph has, and the graph with both directions of each link."""
    import networkx as nx

    checks.kind("graph", graph, nx.Graph, "a networkx graph with ranks 0, 1, 2, … among its nodes")
    if graph.is_multigraph():
        raise ValueError("a cluster has one link from node to node; got a multigraph: add parallel links up")
    numbers = {node: int(node) for node in graph.nodes if isinstance(node, Integral)}
    ranks = len(numbers)
    if not all(isinstance(node, int) for node in numbers):  # such as numpy's
        graph = nx.relabel_nodes(graph, numbers)
    if not ranks:
        raise ValueError("ranks are nodes of the graph, named 0, 1, 2, …; got a graph without whole numbers")
    return ranks, graph if graph.is_directed() else graph.to_directed()


def whole(ranks: int, graph: nx.DiGraph, seed: int) -> Graph:
    """The wiring of a graph in which every rank reaches every other. Raises ValueError for others."""
    import networkx as nx

    wiring = Graph(ranks, graph, seed)
    there, back = nx.descendants(graph, 0), nx.ancestors(graph, 0)
    for rank in range(1, ranks):
        if rank not in there or rank not in back:
            way = f"0 to {rank}" if rank not in there else f"{rank} to 0"
            raise ValueError(f"every rank reaches every other over links; no way leads from {way}: add a link")
    return wiring


def built(wiring: Wiring) -> nx.DiGraph:
    """Any wiring as a graph."""
    if isinstance(wiring, Graph):
        return wiring.graph.copy()
    if isinstance(wiring, Subset):  # nodes have the names that they have there
        return built(wiring.whole)
    import networkx as nx  # takes half of the time in which everything else here is imported

    graph = nx.DiGraph()
    graph.add_nodes_from((rank, {"machine": wiring.machine(rank)}) for rank in range(wiring.ranks))
    graph.add_edges_from((*link, wiring.speed(link)._asdict()) for link in wiring.links())
    return graph


def hops(nodes: Sequence[Node]) -> tuple[Link, ...]:
    """The links between the nodes of a path."""
    return tuple(pairwise(nodes))


def _check(source: Node, target: Node, link: dict[str, Any]) -> None:
    for name, unit in (("bandwidth", "bytes per second above 0"), ("latency", "seconds, 0 or more")):
        value = link.get(name)
        real = isinstance(value, Real) and not isinstance(value, bool)
        if not real or not (value > 0 if name == "bandwidth" else 0 <= value < inf):  # type: ignore[operator]
            raise ValueError(f"a link has a {name}, {unit}; {source!r} -> {target!r} has {name}={value!r}")
    share = link.get("efficiency", 1.0)
    if isinstance(share, bool) or not isinstance(share, Real) or not 0 < float(share) <= 1:
        raise ValueError(f"a link has an efficiency above 0, at most 1; {source!r} -> {target!r} has {share!r}")


def _refuse_typos(what: str, names: Iterable[object], known: Sequence[str]) -> None:
    """Graphs carry what they like, but what is nearly the name of something that counts is no wish of anybody."""
    for name in names:
        close = get_close_matches(str(name).lower(), known, n=1, cutoff=CLOSE)
        if close and name not in known:
            raise ValueError(f"{what} is asked for {', '.join(map(repr, known))}; got {name!r}: is {close[0]!r} meant?")
