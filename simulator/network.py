"""Bytes on the move: flows share links max-min fairly, and shares change whenever a flow starts or ends.

A flow is fluid: at every instant it has one rate, the same on all its links. Rates are max-min fair: no flow can
get more without taking from one that has no more than it (Bertsekas and Gallager, Data Networks, 1992, §6.5.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from operator import attrgetter
from typing import Any

import simpy

from .errors import Uneven
from .fairness import Path, max_min


class Flow:
    """Bytes under way: what is left of them, and what happens when the last one leaves.

    ``most`` [B/s]: as fast as it can be, even alone. ``ends`` [s]: when the last one leaves, at this rate.
    """

    __slots__ = ("alarm", "changed", "done", "ends", "exclusive", "left", "most", "over", "path", "rate", "size")

    def __init__(self, path: Path, most: float, size: float, done: Callable[[], None], now: float):
        self.path, self.most, self.size, self.left, self.done = path, most, size, size, done
        self.rate, self.changed, self.ends, self.over = 0.0, now, inf, False
        self.alarm: object = None
        self.exclusive: Uneven | None = None

    def advance(self, now: float) -> None:
        """What has left since the rate last changed."""
        self.left -= self.rate * (now - self.changed)
        self.changed = now


class Network:
    """The flows of a simulation. Rates hold between events; each start and each end re-shares the links.

    Only flows that share a link, or share one with a flow that does, change each other's rates: a start or an end costs
    what its neighbours cost, however many flows there are elsewhere. A link that could carry all its flows as fast as
    each can be does not count as shared. Of flows that share links the first to end has an alarm, which is for all.
    """

    def __init__(self, env: simpy.Environment, capacity: Callable[[Any], float]):
        self.env, self.capacity = env, capacity
        self.users: dict[Any, dict[Flow, None]] = {}
        self.wanted: dict[Any, float] = {}
        self.started: list[Flow] = []
        self.paths: dict[int, tuple[Path, Path, float]] = {}
        self.reserved: dict[Any, Callable[[], None]] = {}

    def start(
        self, path: Path, size: float, done: Callable[[], None], exclusive: Uneven | None = None, most: float = inf
    ) -> None:
        """Begin to move ``size`` bytes along ``path``; calls ``done`` when the last has left.

        ``most`` [B/s]: never faster, even alone.
        ``exclusive``: what is raised when it shares a link, as long as it does not its loads are right; None: always.
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
        """Give flows and all that share with them their rates, and wake up when the first of them ends."""
        seen: dict[Flow, None] = {}
        for flow in changed:
            if flow not in seen:
                together, links = self._together(flow)
                seen |= together
                self._set_rates(list(together), links)

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

    def _together(self, first: Flow) -> tuple[dict[Flow, None], set[Any]]:
        """A flow and all that share with it, and the links by which they do."""
        found, todo, seen, limits = {first: None}, [first], set(), set()
        while todo:
            for link in todo.pop().path:
                if link in seen:
                    continue
                seen.add(link)
                if self._limits(link):
                    limits.add(link)
                    todo += [flow for flow in self.users[link] if flow not in found]
                    found |= self.users[link]
        return found, limits

    def _set_rates(self, flows: list[Flow], links: set[Any]) -> None:
        for flow in flows if len(flows) > 1 else ():
            if flow.exclusive is not None:
                raise flow.exclusive
        rates = {flows[0]: flows[0].most} if len(flows) == 1 else self._shared(flows, links)
        now = self.env.now
        for flow, rate in rates.items():
            if rate != flow.rate or flow.ends == inf:  # else it ends when it would have ended
                flow.advance(now)
                flow.rate, flow.alarm = rate, None
                flow.ends = now + _time_left(flow)
        self._wake(flows)

    def _wake(self, flows: Sequence[Flow]) -> None:
        """Have an alarm for the first of some flows that ends; others that were to have one need none."""
        first = min(flows, key=attrgetter("ends"))
        alarm = first.alarm
        for flow in flows:
            flow.alarm = None
        if alarm is None:
            alarm = self.env.timeout(max(0.0, first.ends - self.env.now))
            alarm.callbacks.append(lambda event: self._end(event, first))
        first.alarm = alarm

    def _shared(self, flows: Sequence[Flow], links: set[Any]) -> dict[Flow, float]:
        """Max-min fair rates: each flow also has a link to itself, which it fills at its most.

        Flows over the same links are one of so many times their bytes: they get the same.
        """
        alike: dict[tuple[Any, ...], list[Flow]] = {}
        for flow in flows:
            shared = [one for one in flow.path.items() if one[0] in links]
            alike.setdefault((flow.most, *shared), []).append(flow)
        paths: list[dict[Any, float]] = []
        for (most, *path), some in alike.items():
            slower = min((self.capacity(link) / share for link, share in path), default=inf) > most
            own: dict[Any, float] = {some[0]: 1.0} if slower else {}
            paths.append(own | {link: share * len(some) for link, share in path})
        rates = max_min(paths, lambda link: link.most if isinstance(link, Flow) else self.capacity(link))
        return {flow: rate for some, rate in zip(alike.values(), rates) for flow in some}

    def _end(self, event: object, first: Flow) -> None:
        """A flow ends, and with it all that share with it and have nothing left."""
        if event is not first.alarm:
            return
        together, _ = self._together(first)
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
