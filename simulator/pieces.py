"""Messages in pieces, and single ones, without an event for each.

The pieces of a message leave a lane at times max(first + k·period) over a few pairs of these: one for each slower lane
before it, for it passes on no faster what came no faster. So a chain or a tree costs what its lanes cost, in however
many pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

from .rounds import Progress

Times = tuple[tuple[float, float], ...]
"""(first, period): piece k leaves at the largest first + k·period."""


@dataclass(frozen=True)
class Pieces:
    """``counts`` of messages on several lanes, each of which begins when the same has come on the lanes that it needs.

    - ``needs``: for each lane some of those before it.
    - ``lengths`` [s]: until a message has left; ``latencies`` [s] more until it arrives.
    - ``starts`` [s]: before these times nothing begins.

    >>> Pieces([3, 3], [(), (0,)], [1.0, 2.0], [0.5, 0.0], [0.0, 0.0]).left()
    [3.0, 7.5]
    """

    counts: Sequence[int]
    needs: Sequence[Sequence[int]]
    lengths: Sequence[float]
    latencies: Sequence[float]
    starts: Sequence[float]

    @cached_property
    def times(self) -> list[Times]:
        """When the messages of each lane leave it."""
        found: list[Times] = []
        for length, start, needs in zip(self.lengths, self.starts, self.needs):
            if needs:
                coming = [(first + self.latencies[lane], period) for lane in needs for first, period in found[lane]]
                found.append(_passed([*coming, (start, 0.0)], length))
            else:
                found.append(((start + length, length),))
        return found

    def left(self) -> list[float]:
        """When the last message of every lane has left."""
        return [_at(times, count - 1) for times, count in zip(self.times, self.counts)]

    def ends(self) -> list[float]:
        """When it arrives."""
        return [left + latency for left, latency in zip(self.left(), self.latencies)]

    def at(self, now: float, found: Progress, lanes: Sequence[int]) -> None:
        """Note how far they are at a time; what they are called there."""
        for at, lane in enumerate(lanes):
            times, latency, count = self.times[at], self.latencies[at], self.counts[at]
            left, arrived = _many(times, count, now), _many(times, count, now - latency)
            found.left[lane], found.arrived[lane] = left, arrived
            found.arriving += [(lane, _at(times, k) + latency) for k in range(arrived, left)]
            if left < count and _at(times, left) - self.lengths[at] <= now:
                found.leaving.append((lane, _at(times, left)))


def _passed(coming: Iterable[tuple[float, float]], length: float) -> Times:
    """What comes at some times leaves a lane, one after another, at these."""
    found: list[tuple[float, float]] = []
    latest = -inf
    for period, first in sorted(((max(period, length), first) for first, period in coming), reverse=True):
        if first > latest:  # else it is never the largest
            latest = first
            found.append((first + length, period))
    return tuple(found)


def _at(times: Times, k: int) -> float:
    return max(first + k * period for first, period in times)


def _many(times: Times, count: int, now: float) -> int:
    """How many of so many have left at a time."""
    if any(first > now for first, _ in times):
        return 0
    return min([count, *(int((now - first) / period) + 1 for first, period in times if period)])
