"""Rings message by message, without an event for each: all of a round at one time.

Where every message waits for one other of the round before, and nobody else uses the links, the times of a round
follow from those of the last one: a message begins when its sender has received what it passes on, and has sent what
came before. So millions of messages take a second. As soon as somebody else comes upon one of the links, the times
no longer hold, and ``Rounds.at`` says how far each lane had got.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import add, itemgetter
from typing import Any

from .lanes import Lane


@dataclass(frozen=True)
class Rounds:
    """``count`` rounds of one message on each of several lanes.

    ``before[lane]`` is the lane whose message of the last round must have arrived; a message takes ``lengths[lane]``
    seconds to leave, and ``latencies[lane]`` more to arrive; the first ones begin at ``starts``.

    >>> rounds = Rounds(2, (1, 0), [1.0, 1.0], [0.5, 0.5], [0.0, 3.0])
    >>> rounds.ends()
    ([5.5, 5.0], [6.0, 5.5])
    """

    count: int
    before: tuple[int, ...]
    lengths: Sequence[float]
    latencies: Sequence[float]
    starts: Sequence[float]

    def each(self) -> Iterator[tuple[Sequence[float], list[float], list[float]]]:
        """For every round, when messages begin, have left and arrive, by lane."""
        turn: Any = itemgetter(*self.before) if len(self.before) > 1 else lambda times: (times[self.before[0]],)
        starts, lengths, latencies = self.starts, self.lengths, self.latencies
        late = any(latencies)
        left: list[float] = []
        arrived: list[float] = []
        for number in range(self.count):
            if number:
                starts = list(map(max, left, turn(arrived)))
            left = list(map(add, starts, lengths))
            arrived = list(map(add, left, latencies)) if late else left
            yield starts, left, arrived

    def ends(self) -> tuple[list[float], list[float]]:
        """When the last message of every lane has left, and when it arrives."""
        for _, left, arrived in self.each():
            last = left, arrived
        return last

    def at(self, now: float) -> Progress:
        """How far all lanes are at a time."""
        found = Progress([0] * len(self.before), [0] * len(self.before))
        for starts, left, arrived in self.each():
            if min(starts) > now:
                break
            for lane in range(len(starts)):
                found.note(lane, starts[lane], left[lane], arrived[lane], now)
        return found


@dataclass
class Progress:
    """By lane, how many messages have left and how many have arrived; which are between, and until when."""

    left: list[int]
    arrived: list[int]
    leaving: list[tuple[int, float]] = field(default_factory=list)
    arriving: list[tuple[int, float]] = field(default_factory=list)

    def note(self, lane: int, start: float, left: float, arrived: float, now: float) -> None:
        """Where one message is."""
        if arrived <= now:
            self.arrived[lane] += 1
        elif left <= now:
            self.arriving.append((lane, arrived))
        if left <= now:
            self.left[lane] += 1
        elif start <= now:
            self.leaving.append((lane, left))


def turning(lanes: Sequence[Lane]) -> tuple[int, ...] | None:
    """The lane before each lane, where the script is one of rings alone; else None."""
    first = lanes[0]
    for lane in lanes:
        if lane.count != first.count or lane.behind is not None or len(lane.needs) != 1 or lane.needs[0][1] != 1:
            return None
    return tuple(lane.needs[0][0] for lane in lanes)
