"""Bytes on the move: flows share links max-min fairly, and shares change whenever a flow starts or ends.

A flow is fluid: at every instant it has one rate, the same on all its links. Rates are max-min fair: no flow can
get more without taking from one that has no more than it (Bertsekas and Gallager, Data Networks, 1992, §6.5.2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, Any

import simpy

from .errors import CannotFold

if TYPE_CHECKING:
    import networkx as nx

Path = Mapping[Any, float]
"""Links of a flow, and how many bytes pass each of them for one byte of the flow."""


def max_min(paths: Sequence[Path], capacity: Callable[[Any], float]) -> list[float]:
    """Max-min fair rates of flows by water filling: raise all rates together, freeze those that hit a full link.

    ``capacity(link)`` is in bytes per second; so are the rates. A flow over no link, or only over infinite ones,
    has an infinite rate.
    """
    rates = [inf] * len(paths)
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
            rates[flow] = rate
            for link, times in paths[flow].items():
                room[link] = max(0.0, room[link] - rate * times)
                del users[link][flow]
                load[link] = load[link] - times if users[link] else 0.0
    return rates


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

    paths = []
    for flow in flows:
        nodes = list(flow)
        if len(nodes) == 2 and not graph.has_edge(*nodes):
            try:
                nodes = nx.shortest_path(graph, *nodes)
            except (nx.NodeNotFound, nx.NetworkXNoPath) as error:
                told = f"a flow goes from a node of the graph to one that it reaches; {flow!r} does not: {error}"
                raise ValueError(told) from None
        for link in pairwise(nodes):
            if not graph.has_edge(*link):
                raise ValueError(f"a flow follows the graph's edges; {link[0]!r} -> {link[1]!r} is none")
        paths.append(Counter(pairwise(nodes)))
    edges = graph.edges
    return max_min(paths, lambda link: float(edges[link]["bandwidth"] * edges[link].get("efficiency", 1.0)))


class Flow:
    """Bytes under way: what is left of them, and what happens when the last one leaves."""

    __slots__ = ("alarm", "alone", "changed", "done", "exclusive", "left", "over", "path", "rate", "size")

    def __init__(self, path: Path, alone: float, size: float, done: Callable[[], None], now: float):
        self.path, self.alone, self.size, self.left, self.done = path, alone, size, size, done
        self.rate, self.changed, self.over = 0.0, now, False
        self.alarm: object = None
        self.exclusive = False

    def advance(self, now: float) -> None:
        """What has left since the rate last changed."""
        self.left -= self.rate * (now - self.changed)
        self.changed = now


class Network:
    """The flows of a simulation. Rates hold between events; each start and each end re-shares the links.

    Only flows that share a link, or share one with a flow that does, change each other's rates: a start or an end costs
    what its neighbours cost, however many flows there are elsewhere.
    """

    def __init__(self, env: simpy.Environment, capacity: Callable[[Any], float]):
        self.env, self.capacity = env, capacity
        self.users: dict[Any, dict[Flow, None]] = {}
        self.started: list[Flow] = []
        self.paths: dict[int, tuple[Path, Path, float]] = {}
        self.reserved: dict[Any, Callable[[], None]] = {}

    def start(self, path: Path, size: float, done: Callable[[], None], exclusive: bool = False) -> None:
        """Begin to move ``size`` bytes along ``path``; calls ``done`` when the last has left.

        ``exclusive``: its loads are right only as long as it shares no link; CannotFold is raised when it does.
        """
        if not size >= 0:
            raise ValueError(f"a flow moves 0 bytes or more; got {size}")
        finite, alone = self._prepared(path)
        if self.reserved:
            self._disturb(finite)
        flow = Flow(finite, alone, size, done, self.env.now)
        flow.exclusive = exclusive
        for link in finite:
            self.users.setdefault(link, {})[flow] = None
        if not self.started:  # what starts at one time is shared out once
            self.env.timeout(0).callbacks.append(self._begin)
        self.started.append(flow)

    def alone(self, path: Path, size: float) -> float:
        """Seconds that ``size`` bytes take along a path that nobody else uses."""
        return size / self._prepared(path)[1]

    def free(self, links: Iterable[Any]) -> bool:
        """Whether nobody uses any of the links, nor has reserved them."""
        return not any(self.users.get(link) or link in self.reserved for link in links)

    def reserve(self, links: Iterable[Any], disturbed: Callable[[], None]) -> None:
        """Keep links that are free for flows that are not here, because it is known when they end.

        ``disturbed`` is called when another flow begins on one of them: it releases the links and starts those flows.
        """
        self.reserved.update(dict.fromkeys(links, disturbed))

    def release(self, links: Iterable[Any]) -> None:
        """Links are no longer reserved."""
        for link in links:
            del self.reserved[link]

    def _disturb(self, path: Path) -> None:
        for link in path:
            disturbed = self.reserved.get(link)
            if disturbed is not None:
                disturbed()

    def _prepared(self, path: Path) -> tuple[Path, float]:
        """The links of a path that limit anything, and the rate of a flow that has them to itself."""
        known = self.paths.get(id(path))
        if known is None or known[0] is not path:
            finite = {link: times for link, times in path.items() if times and self.capacity(link) != inf}
            known = self.paths[id(path)] = (path, finite, max_min([finite], self.capacity)[0])
        return known[1:]

    def _begin(self, event: object) -> None:
        started, self.started = self.started, []
        self._share([flow for flow in started if not flow.over])

    def _share(self, changed: Sequence[Flow]) -> None:
        """Give flows and all that share with them their rates, and wake up when each of them ends."""
        seen: dict[Flow, None] = {}
        for flow in changed:
            if flow not in seen:
                together = self._together(flow)
                seen |= together
                self._set_rates(list(together))

    def _together(self, first: Flow) -> dict[Flow, None]:
        found, todo, links = {first: None}, [first], set()
        while todo:
            for link in todo.pop().path:
                if link not in links and len(self.users[link]) > 1:
                    links.add(link)
                    todo += [flow for flow in self.users[link] if flow not in found]
                    found |= self.users[link]
        return found

    def _set_rates(self, flows: list[Flow]) -> None:
        if len(flows) > 1 and any(flow.exclusive for flow in flows):
            raise CannotFold("a collective that loads its members' links unevenly shares links with other bytes")
        rates = [flows[0].alone] if len(flows) == 1 else max_min([flow.path for flow in flows], self.capacity)
        now = self.env.now
        for flow, rate in zip(flows, rates):
            if rate == flow.rate and flow.alarm is not None:
                continue  # it ends when it would have ended
            flow.advance(now)
            flow.rate = rate
            event = self.env.timeout(_time_left(flow))
            flow.alarm = event
            event.callbacks.append(lambda event, flow=flow: self._end(event, flow))  # type: ignore[misc]

    def _end(self, event: object, first: Flow) -> None:
        """A flow ends, and with it all that share with it and have nothing left."""
        if event is not first.alarm:
            return
        together = self._together(first)
        for flow in together:
            flow.advance(self.env.now)
        first.left = 0.0
        ended = [flow for flow in together if flow.left <= 1e-12 * flow.size]
        for flow in ended:
            flow.alarm, flow.over = None, True
            for link in flow.path:
                del self.users[link][flow]
        self._share([flow for flow in together if flow.left > 1e-12 * flow.size])
        for flow in ended:
            flow.done()


def _time_left(flow: Flow) -> float:
    if flow.left <= 0 or flow.rate == inf:
        return 0.0
    return flow.left / flow.rate
