"""Bytes under way, and the rates that are fair to those that share links."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import Any

from .errors import Uneven
from .fairness import filled

Numbered = Mapping[int, float]
"""A path by the numbers of its links, without those that limit nothing."""
NOTHING = -1
"""In the place of a link: what keeps a flow from being faster is that it cannot be."""


class Flow:
    """Bytes under way: what is left of them, and what happens when the last one leaves.

    ``most`` [B/s]: as fast as it can be, even alone. ``held``: the link that keeps it from being faster. ``ends`` [s]:
    when the last one leaves, at this rate. ``exclusive``: what is raised when it shares a link.
    """

    __slots__ = (
        "alarm", "changed", "done", "ends", "exclusive", "held", "left", "most", "over", "path", "rate", "size",
    )  # fmt: skip

    def __init__(self, path: Numbered, most: float, size: float, done: Callable[[], None], now: float):
        self.path, self.most, self.size, self.left, self.done = path, most, size, size, done
        self.rate, self.held, self.changed, self.ends, self.over = 0.0, NOTHING, now, inf, False
        self.alarm: object = None
        self.exclusive: Uneven | None = None

    def go_on(self, rate: float, now: float) -> bool:
        """At this rate from now on; whether it is another, so that it ends at another time."""
        if rate == self.rate and self.ends != inf:
            return False
        self.left -= self.rate * (now - self.changed)
        self.changed, self.rate = now, rate
        self.ends = now + (0.0 if self.left <= 0 or rate == inf else self.left / rate)
        return True

    def ends_by(self, time: float) -> bool:
        """Whether it ends at a time, but for rounding."""
        return self.ends <= time or (self.ends - time) * self.rate <= 1e-12 * self.size


def refuse(flows: Iterable[Flow]) -> None:
    """Raise what a flow says that should be alone."""
    for flow in flows:
        if flow.exclusive is not None:
            raise flow.exclusive


def shares(
    flows: Iterable[Flow], links: set[int], speeds: Sequence[float], room: Mapping[int, float] | Sequence[float]
) -> dict[Flow, tuple[float, int]]:
    """Max-min fair rates of flows that share some links, and what holds each of them back.

    - ``speeds``: of all links [B/s]; ``room``: what is left of them for these flows.

    Each flow also has a link to itself, which it fills at its most. Flows over the same links are one of so many times
    their bytes: they get the same.
    """
    if not links:
        return {flow: (flow.most, NOTHING) for flow in flows}
    alike: dict[tuple[Any, ...], list[Flow]] = {}
    for flow in flows:
        shared = [one for one in flow.path.items() if one[0] in links]
        alike.setdefault((flow.most, *shared), []).append(flow)
    paths: list[dict[Any, float]] = []
    for (most, *path), some in alike.items():
        slower = min((speeds[link] / share for link, share in path), default=inf) > most
        own: dict[Any, float] = {some[0]: 1.0} if slower or not path else {}
        paths.append(own | {link: share * len(some) for link, share in path})
    rates, held = filled(paths, lambda link: link.most if isinstance(link, Flow) else room[link])
    found = zip(alike.values(), rates, [link if isinstance(link, int) else NOTHING for link in held])
    return {flow: (rate, link) for some, rate, link in found for flow in some}
