"""Bytes on the move: flows share links max-min fairly, and shares change whenever a flow starts or ends.

A flow is fluid: at every instant it has one rate, the same on all its links. Rates are max-min fair: no flow can
get more without taking from one that has no more than it (Bertsekas and Gallager, Data Networks, 1992, §6.5.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any

import simpy

from .errors import CannotFold
from .fairness import Path, max_min


class Flow:
    """Bytes under way: what is left of them, and what happens when the last one leaves.

    ``most`` [B/s]: as fast as it can be, even alone.
    """

    __slots__ = ("alarm", "changed", "done", "exclusive", "left", "most", "over", "path", "rate", "size")

    def __init__(self, path: Path, most: float, size: float, done: Callable[[], None], now: float):
        self.path, self.most, self.size, self.left, self.done = path, most, size, size, done
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
    what its neighbours cost, however many flows there are elsewhere. A link that could carry all its flows as fast as
    each can be does not count as shared.
    """

    def __init__(self, env: simpy.Environment, capacity: Callable[[Any], float]):
        self.env, self.capacity = env, capacity
        self.users: dict[Any, dict[Flow, None]] = {}
        self.wanted: dict[Any, float] = {}
        self.started: list[Flow] = []
        self.paths: dict[int, tuple[Path, Path, float]] = {}
        self.reserved: dict[Any, Callable[[], None]] = {}

    def start(
        self, path: Path, size: float, done: Callable[[], None], exclusive: bool = False, most: float = inf
    ) -> None:
        """Begin to move ``size`` bytes along ``path``; calls ``done`` when the last has left.

        ``most`` [B/s]: never faster, even alone.
        ``exclusive``: its loads are right only as long as it shares no link; CannotFold is raised when it does.
        """
        if not size >= 0:
            raise ValueError(f"a flow moves 0 bytes or more; got {size}")
        finite, alone = self._prepared(path)
        if self.reserved:
            self._disturb(finite)
        flow = Flow(finite, min(alone, most), size, done, self.env.now)
        flow.exclusive = exclusive
        self._enter(flow)
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

    def _enter(self, flow: Flow) -> None:
        for link, times in flow.path.items():
            users = self.users.setdefault(link, {})
            self.wanted[link] = flow.most * times + (self.wanted[link] if users else 0.0)
            users[flow] = None

    def _leave(self, flow: Flow) -> None:
        for link, times in flow.path.items():
            del self.users[link][flow]
            self.wanted[link] -= flow.most * times

    def _limits(self, link: Any) -> bool:
        """Whether the flows over a link would have more of it than there is."""
        return len(self.users[link]) > 1 and self.wanted[link] > self.capacity(link) * (1 + 1e-9)

    def _together(self, first: Flow) -> dict[Flow, None]:
        found, todo, links = {first: None}, [first], set()
        while todo:
            for link in todo.pop().path:
                if link not in links and self._limits(link):
                    links.add(link)
                    todo += [flow for flow in self.users[link] if flow not in found]
                    found |= self.users[link]
        return found

    def _set_rates(self, flows: list[Flow]) -> None:
        if len(flows) > 1 and any(flow.exclusive for flow in flows):
            raise CannotFold("a collective that loads its members' links unevenly shares links with other bytes")
        rates = [flows[0].most] if len(flows) == 1 else self._shared(flows)
        now = self.env.now
        for flow, rate in zip(flows, rates):
            if rate == flow.rate and flow.alarm is not None:
                continue  # it ends when it would have ended
            flow.advance(now)
            flow.rate = rate
            event = self.env.timeout(_time_left(flow))
            flow.alarm = event
            event.callbacks.append(lambda event, flow=flow: self._end(event, flow))  # type: ignore[misc]

    def _shared(self, flows: Sequence[Flow]) -> list[float]:
        """Max-min fair rates: each flow also has a link to itself, which it fills at its most."""
        limits: dict[Any, bool] = {}
        paths: list[dict[Any, float]] = []
        for flow in flows:
            for link in flow.path:
                if link not in limits:
                    limits[link] = self._limits(link)
            paths.append({flow: 1.0, **{link: times for link, times in flow.path.items() if limits[link]}})
        return max_min(paths, lambda link: link.most if isinstance(link, Flow) else self.capacity(link))

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
            self._leave(flow)
        self._share([flow for flow in together if flow.left > 1e-12 * flow.size])
        for flow in ended:
            flow.done()


def _time_left(flow: Flow) -> float:
    if flow.left <= 0 or flow.rate == inf:
        return 0.0
    return flow.left / flow.rate
