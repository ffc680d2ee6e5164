"""Bytes on the move: flows share links max-min fairly, and shares change whenever a flow starts or ends.

A flow is fluid: at every instant it has one rate, the same on all its links. Rates are max-min fair: no flow can
get more without taking from one that has no more than it (Bertsekas and Gallager, Data Networks, 1992, §6.5.2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, Any

import simpy

if TYPE_CHECKING:
    import networkx as nx

Path = Mapping[Any, int]
"""Links of a flow, and how many times the flow uses each."""


def max_min(paths: Sequence[Path], capacity: Callable[[Any], float]) -> list[float]:
    """Max-min fair rates of flows by water filling: raise all rates together, freeze those that hit a full link.

    ``capacity(link)`` is in bytes per second; so are the rates. A flow over no link, or only over infinite ones,
    has an infinite rate.
    """
    rates = [inf] * len(paths)
    room: dict[Any, float] = {}
    users: dict[Any, dict[int, int]] = {}
    for flow, path in enumerate(paths):
        for link, times in path.items():
            if link not in room:
                room[link], users[link] = capacity(link), {}
            users[link][flow] = times
    load = {link: sum(flows.values()) for link, flows in users.items()}
    while load:
        tightest = min(load, key=lambda link: room[link] / load[link])
        rate = room[tightest] / load[tightest]
        if rate == inf:
            break
        for flow in list(users[tightest]):
            rates[flow] = rate
            for link, times in paths[flow].items():
                room[link] = max(0.0, room[link] - rate * times)
                load[link] -= times
                del users[link][flow]
                if not load[link]:
                    del load[link]
    return rates


def fair_rates(graph: nx.DiGraph, flows: Sequence[Sequence[Any]]) -> list[float]:
    """Max-min fair rates [B/s] of flows over a graph whose edges carry ``bandwidth`` [B/s per direction].

    Each flow is a path (a list of nodes), or a pair (source, target), which takes the shortest path.

    >>> graph = nx.DiGraph()
    >>> graph.add_edge("a", "b", bandwidth=10.0)
    >>> graph.add_edge("b", "c", bandwidth=4.0)
    >>> fair_rates(graph, [["a", "b", "c"], ["a", "b"], ["b", "c"]])
    [2.0, 8.0, 2.0]
    """
    import networkx as nx

    paths = []
    for flow in flows:
        nodes = list(flow)
        if len(nodes) == 2 and not graph.has_edge(*nodes):
            nodes = nx.shortest_path(graph, *nodes)
        for link in pairwise(nodes):
            if not graph.has_edge(*link):
                raise ValueError(f"a flow follows the graph's edges; {link[0]!r} -> {link[1]!r} is none")
        paths.append(Counter(pairwise(nodes)))
    return max_min(paths, lambda link: float(graph.edges[link]["bandwidth"]))


class Flow:
    """Bytes under way: what is left of them, and what happens when the last one leaves."""

    __slots__ = ("done", "left", "path", "rate", "size")

    def __init__(self, path: Path, size: float, done: Callable[[], None]):
        self.path, self.size, self.left, self.done, self.rate = path, size, size, done, 0.0


class Network:
    """The flows of a simulation. Rates hold between events; each start and each end re-shares the links."""

    def __init__(self, env: simpy.Environment, capacity: Callable[[Any], float]):
        self.env, self.capacity = env, capacity
        self.flows: list[Flow] = []
        self.changed = env.now
        self.alarm: object = None
        self.alone: dict[int, tuple[Path, float]] = {}

    def start(self, path: Path, size: float, done: Callable[[], None]) -> None:
        """Begin to move ``size`` bytes along ``path``; calls ``done`` when the last has left."""
        if not size >= 0:
            raise ValueError(f"a flow moves 0 bytes or more; got {size}")
        self._advance()
        flow = Flow(path, size, done)
        self.flows.append(flow)
        self._share()

    def _advance(self) -> None:
        elapsed = self.env.now - self.changed
        self.changed = self.env.now
        if elapsed:
            for flow in self.flows:
                flow.left -= flow.rate * elapsed

    def _share(self) -> None:
        """Give every flow its rate, and wake up when the first of them ends."""
        if not self.flows:
            self.alarm = None
            return
        for flow, rate in zip(self.flows, self._rates()):
            flow.rate = rate
        first = min(self.flows, key=lambda flow: _time_left(flow))
        event = self.env.timeout(_time_left(first))
        self.alarm = event
        event.callbacks.append(lambda event: self._end(event, first))

    def _rates(self) -> list[float]:
        if len(self.flows) > 1:
            return max_min([flow.path for flow in self.flows], self.capacity)
        path = self.flows[0].path
        known = self.alone.get(id(path))
        if known is None or known[0] is not path:
            known = self.alone[id(path)] = (path, max_min([path], self.capacity)[0])
        return [known[1]]

    def _end(self, event: object, first: Flow) -> None:
        if event is not self.alarm:
            return
        self._advance()
        first.left = 0.0
        ended = [flow for flow in self.flows if flow.left <= 1e-12 * flow.size]
        self.flows = [flow for flow in self.flows if flow.left > 1e-12 * flow.size]
        self._share()
        for flow in ended:
            flow.done()


def _time_left(flow: Flow) -> float:
    if flow.left <= 0 or flow.rate == inf:
        return 0.0
    return flow.left / flow.rate
