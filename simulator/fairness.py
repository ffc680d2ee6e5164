"""Max-min fair shares of links: no flow can get more without taking from one that has no more than it.

Source: Bertsekas and Gallager, Data Networks, 1992, §6.5.2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise
from math import inf
from numbers import Real
from typing import TYPE_CHECKING, Any

from . import checks

if TYPE_CHECKING:
    import networkx as nx

Path = Mapping[Any, float]
"""Links of a flow, and how many bytes pass each of them for one byte of the flow."""


def max_min(paths: Sequence[Path], capacity: Callable[[Any], float]) -> list[float]:
    """Max-min fair rates of flows by water filling: raise all rates together, freeze those that hit a full link.

    ``capacity(link)`` is in bytes per second; so are the rates. A flow over no link, or only over infinite ones,
    has an infinite rate.
    """
    return filled(paths, capacity)[0]


def filled(paths: Sequence[Path], capacity: Callable[[Any], float]) -> tuple[list[float], list[Any]]:
    """The same, and the full link that each flow hit; None where it hit none."""
    rates, held = [inf] * len(paths), [None] * len(paths)
    room: dict[Any, float] = {}
    users: dict[Any, dict[int, float]] = {}
    for flow, path in enumerate(paths):
        for link, times in path.items():
            if link not in room:
                room[link], users[link] = capacity(link), {}
            users[link][flow] = times
    load = {link: float(sum(flows.values())) for link, flows in users.items()}
    # A link's fair share only grows while others are filled: what stands in the heap is never too large.
    heap = [(room[link] / load[link], index, link) for index, link in enumerate(load)]
    heapify(heap)
    while heap:
        rate, index, tightest = heappop(heap)
        if not users[tightest]:
            continue
        share = room[tightest] / load[tightest]
        if share > rate:
            heappush(heap, (share, index, tightest))
            continue
        if rate == inf:
            break
        for flow in list(users[tightest]):
            rates[flow], held[flow] = rate, tightest
            for link, times in paths[flow].items():
                room[link] = max(0.0, room[link] - rate * times)
                del users[link][flow]
                load[link] = load[link] - times if users[link] else 0.0
    return rates, held


def fair_rates(graph: nx.DiGraph, flows: Sequence[Sequence[Any]]) -> list[float]:
    """Max-min fair rates [B/s] of flows over a graph whose edges carry ``bandwidth`` [B/s per direction].

    Each flow is a path (a list of nodes), or a pair (source, target), which takes the shortest path. An edge may carry
    ``efficiency``, the share of its bandwidth that data can have.

    >>> graph = nx.DiGraph()
    >>> graph.add_edge("a", "b", bandwidth=10.0)
    >>> graph.add_edge("b", "c", bandwidth=4.0)
    >>> fair_rates(graph, [["a", "b", "c"], ["a", "b"], ["b", "c"]])
    [2.0, 8.0, 2.0]
    """
    import networkx as nx

    _check_graph(graph)
    paths = []
    for flow in checks.several("flows", flows, "a list of paths, or of pairs (source, target)"):
        nodes = checks.several("a flow", flow, "a list of the nodes that it passes, or a pair (source, target)")
        if not nodes:
            raise ValueError("a flow passes the nodes of its path; got none: name its source and its target")
        try:
            if len(nodes) == 2 and not graph.has_edge(*nodes):
                nodes = nx.shortest_path(graph, *nodes)
            paths.append(Counter(pairwise(nodes)))
        except (nx.NodeNotFound, nx.NetworkXNoPath, TypeError) as error:  # TypeError: what has no hash is no node
            told = f"a flow goes from a node of the graph to one that it reaches; {flow!r} does not: {error}"
            raise ValueError(told) from None
        for link in pairwise(nodes):
            if not graph.has_edge(*link):
                raise ValueError(f"a flow follows the graph's edges; {link[0]!r} -> {link[1]!r} is none")
    return max_min(paths, lambda link: _bandwidth(link, graph.edges[link]))


def _check_graph(graph: object) -> None:
    import networkx as nx

    checks.kind("graph", graph, nx.Graph, "a networkx graph, such as that of a cluster: cluster.graph")
    if graph.is_multigraph():  # type: ignore[attr-defined]
        raise ValueError("a graph has one link from node to node; got a multigraph: add parallel links up")


def _bandwidth(link: tuple[Any, Any], edge: Mapping[str, Any]) -> float:
    """What data can have of an edge [B/s]."""
    told, found, of = f"{link[0]!r} -> {link[1]!r}", 1.0, {"efficiency": 1.0, **edge}
    for name, value, most in (("bandwidth", of.get("bandwidth"), inf), ("efficiency", of["efficiency"], 1)):
        real = isinstance(value, Real) and not isinstance(value, bool)
        if not real or not 0 < value <= most:  # type: ignore[operator]
            rule = "a bandwidth, bytes per second above 0" if most == inf else "an efficiency above 0, at most 1"
            raise ValueError(f"a link has {rule}; {told} has {name}={value!r}: set it on the edge")
        found *= float(value)  # type: ignore[arg-type]
    return found
