"""Bytes on the move: flows share links max-min fairly, and shares change whenever a flow starts or ends.

A flow is fluid: at every instant it has one rate, the same on all its links. Rates are max-min fair: no flow can
get more without taking from one that has no more than it (Bertsekas and Gallager, Data Networks, 1992, §6.5.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import Any

import simpy

from .errors import Uneven
from .fairness import Path, max_min
from .flows import NOTHING, Flow, Numbered, refuse, shares


class Network:
    """The flows of a simulation. Rates hold between events; starts and ends change them.

    Only flows that share a link, or share one with a flow that does, change each other's rates: a start or an end costs
    what its neighbours cost, however many flows there are elsewhere. A link that could carry all its flows as fast as
    each can be does not count as shared. Nor do neighbours count whose rates stay fair: where those who begin fit in
    beside them, and where those who end held none of them back. What starts and ends at one time is shared out once.
    Links have numbers, which are quicker to look up than their names: by number, ``speeds``, ``users`` and ``wanted``.
    """

    def __init__(self, env: simpy.Environment, capacity: Callable[[Any], float]):
        self.env, self.capacity = env, capacity
        self.numbers: dict[Any, int] = {}
        self.speeds: list[float] = []
        self.users: list[dict[Flow, None]] = []
        self.wanted: list[float] = []
        self.started: list[Flow] = []
        self.eased: list[Flow] = []
        self.paths: dict[int, tuple[Path, Numbered, float]] = {}
        self.reserved: dict[int, Callable[[], None]] = {}

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
        self._soon()
        self.started.append(flow)

    def alone(self, path: Path, size: float) -> float:
        """Seconds that ``size`` bytes take along a path that nobody else uses."""
        return size / self._prepared(path)[1]

    def free(self, links: Iterable[Any]) -> bool:
        """Whether nobody uses any of the links, nor has reserved them."""
        return not any(self.users[link] or link in self.reserved for link in map(self._number, links))

    def reserve(self, links: Iterable[Any], disturbed: Callable[[], None]) -> None:
        """Keep links that are free for flows that are not here, because it is known when they end.

        ``disturbed`` is called when another flow begins on one of them: it releases the links and starts those flows.
        """
        self.reserved.update(dict.fromkeys(map(self._number, links), disturbed))

    def release(self, links: Iterable[Any]) -> None:
        """Links are no longer reserved."""
        for link in map(self._number, links):
            del self.reserved[link]

    def _disturb(self, path: Numbered) -> None:
        for link in path:
            disturbed = self.reserved.get(link)
            if disturbed is not None:
                disturbed()

    def _number(self, link: Any) -> int:
        """The number of a link, new or known."""
        found = self.numbers.get(link)
        if found is None:
            found = self.numbers[link] = len(self.speeds)
            self.speeds.append(self.capacity(link))
            self.users.append({})
            self.wanted.append(0.0)
        return found

    def _prepared(self, path: Path) -> tuple[Numbered, float]:
        """The links of a path that limit anything, and the rate of a flow that has them to itself."""
        known = self.paths.get(id(path))
        if known is None or known[0] is not path:
            numbers = ((self._number(link), times) for link, times in path.items() if times)
            finite = {link: times for link, times in numbers if self.speeds[link] != inf}
            known = self.paths[id(path)] = (path, finite, max_min([finite], self.speeds.__getitem__)[0])
        return known[1:]

    def _soon(self) -> None:
        """Have rates shared out before time goes on, after all else that is at this time."""
        if not self.started and not self.eased:
            self.env.timeout(0).callbacks.append(self._share_out)

    def _share_out(self, event: object) -> None:
        started, eased = ([flow for flow in some if not flow.over] for some in (self.started, self.eased))
        self.started, self.eased = [], []
        if eased or (started and not self._fits(started)):
            self._share([*started, *eased])

    def _enter(self, flow: Flow) -> None:
        for link, times in flow.path.items():
            users = self.users[link]
            self.wanted[link] = flow.most * times + (self.wanted[link] if users else 0.0)
            users[flow] = None

    def _leave(self, flow: Flow) -> None:
        flow.over, flow.alarm = True, None
        for link, times in flow.path.items():
            del self.users[link][flow]
            self.wanted[link] -= flow.most * times

    # ------------------------------------------------------------ who shares with whom

    def _limits(self, link: int) -> bool:
        """Whether the flows over a link would have more of it than there is."""
        return len(self.users[link]) > 1 and self.wanted[link] > self.speeds[link] * (1 + 1e-9)

    def _share(self, changed: Iterable[Flow]) -> None:
        """Give flows and all that share with them their rates."""
        seen: dict[Flow, None] = {}
        for flow in changed:
            if flow not in seen:
                together, links = self._together(flow)
                seen |= together
                if len(together) > 1:
                    refuse(together)
                self._set(shares(together, links, self.speeds, self.speeds))

    def _together(self, first: Flow) -> tuple[dict[Flow, None], set[int]]:
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

    def _fits(self, flows: Sequence[Flow]) -> bool:
        """Give flows what others leave them, if that is their fair share: then the others go on as they do."""
        new, left, others = dict.fromkeys(flows), dict[int, float](), dict[int, list[Flow]]()
        links = {link for flow in flows for link in flow.path if self._limits(link)}
        for link in links:
            some = others[link] = [flow for flow in self.users[link] if flow not in new]
            left[link] = self.speeds[link] - sum([flow.rate * flow.path[link] for flow in some])
            if some and left[link] <= 1e-9 * self.speeds[link]:
                return False
            refuse(self.users[link])
        rates = shares(flows, links, self.speeds, left)
        if any(other.rate > rate * (1 + 1e-9) for rate, link in rates.values() for other in others.get(link, ())):
            return False
        self._set(rates)
        return True

    # ------------------------------------------------------------ when they end

    def _set(self, rates: Mapping[Flow, tuple[float, int]]) -> None:
        """Rates from now on, and the links that hold flows back; those held back by one link have one alarm."""
        now, together = self.env.now, dict[object, list[Flow]]()
        for flow, (rate, held) in rates.items():
            flow.held = held
            if flow.go_on(rate, now):
                together.setdefault(flow if held == NOTHING else held, []).append(flow)
        for flows in together.values():
            self._wake(flows)

    def _wake(self, flows: Sequence[Flow]) -> None:
        """Have an alarm when the first of some flows ends; those that they had do not count any more."""
        first = min([flow.ends for flow in flows])
        alarm = self.env.timeout(max(0.0, first - self.env.now))
        alarm.callbacks.append(lambda event: self._end(event, flows, first))
        for flow in flows:
            flow.alarm = alarm

    def _end(self, alarm: object, flows: Sequence[Flow], time: float) -> None:
        """Some flows end; whoever was held back by their links may be faster now."""
        mine = [flow for flow in flows if flow.alarm is alarm]
        ended = [flow for flow in mine if flow.ends_by(time)]
        for flow in ended:
            self._leave(flow)
        freed = {link for flow in ended for link in flow.path}
        if eased := [flow for link in freed for flow in self.users[link] if flow.held == link]:
            self._soon()
            self.eased += eased
        if rest := [flow for flow in mine if not flow.over]:
            self._wake(rest)
        for flow in ended:
            flow.done()
