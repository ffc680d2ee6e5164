"""Rings message by message, without an event for each: all of a round at one time.

Where every message waits for one other of the round before, and takes a time that is known, the times of a round
follow from those of the last one: a rank sends when its last message has arrived, and what it passes on has come. As
soon as each round is as much later than the one before for all, so are those that follow (Heidergott, Olsder and van
der Woude, Max Plus at Work, 2006), so that millions of messages take milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from operator import add, itemgetter, sub
from typing import Any

CLOSE = 1e-13
"""Steps that differ by less, as a part of the time so far, are alike."""


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


@dataclass(frozen=True)
class Rounds:
    """``count`` rounds of one message on each of several lanes.

    ``before[lane]`` is the lane whose message of the last round must have arrived; a message takes ``lengths[lane]``
    seconds to leave, and ``latencies[lane]`` more to arrive; the first ones begin at ``starts``.

    >>> Rounds(2, (1, 0), [1.0, 1.0], [0.5, 0.5], [0.0, 3.0]).ends()
    [6.0, 6.0]
    """

    count: int
    before: tuple[int, ...]
    lengths: Sequence[float]
    latencies: Sequence[float]
    starts: Sequence[float]

    def each(self) -> Iterator[tuple[Sequence[float], list[float], list[float]]]:
        """For every round, when messages begin, have left and arrive, by lane."""
        turn, starts, lengths, latencies = self._turn(), self.starts, self.lengths, self.latencies
        late = any(latencies)
        arrived: list[float] = []
        for number in range(self.count):
            if number:
                starts = list(map(max, arrived, turn(arrived)))
            left = list(map(add, starts, lengths))
            arrived = list(map(add, left, latencies)) if late else left
            yield starts, left, arrived

    def ends(self) -> list[float]:
        """When the last message of every lane arrives."""
        turn, busy, first = self._turn(), list(map(add, self.lengths, self.latencies)), min(self.starts)
        times = [start - first + length for start, length in zip(self.starts, busy)]
        here = max(self.starts) < inf
        for number in range(1, self.count):
            last, times = times, list(map(add, map(max, times, turn(times)), busy))
            if here and not number & (number - 1):  # after 1, 2, 4, 8, … rounds
                steps = list(map(sub, times, last))
                if max(steps) - min(steps) <= CLOSE * max(times):
                    times = [time + (self.count - 1 - number) * step for time, step in zip(times, steps)]
                    break
        return [first + time for time in times]

    def at(self, now: float, found: Progress, lanes: Sequence[int]) -> None:
        """Note how far they are at a time; what they are called there."""
        done = 0
        for starts, left, arrived in self.each():
            if max(arrived) <= now:
                done += 1
                continue
            if min(starts) > now:
                break
            for lane, start, gone, came in zip(lanes, starts, left, arrived):
                found.note(lane, start, gone, came, now)
        for lane in lanes:
            found.left[lane] += done
            found.arrived[lane] += done

    def _turn(self) -> Any:
        """Puts the times of the lanes before in the places of the lanes that wait for them."""
        return itemgetter(*self.before) if len(self.before) > 1 else lambda times: (times[self.before[0]],)
