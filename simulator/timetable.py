"""When all messages of a collective go, while nobody else uses its links: computed, without an event for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from math import inf
from typing import Any

from .laying import Group, Laid
from .pieces import Pieces
from .rounds import Progress, Rounds

Part = tuple[Sequence[int], Rounds | Pieces]
"""Some lanes, and their times."""


class Timetable:
    """Of a script: a message takes ``lengths[lane]`` [s] to leave; each rank begins when it may, by ``starts`` [s].

    A rank that has not come yet starts at infinity.
    """

    def __init__(self, laid: Laid, lengths: Sequence[float], starts: Mapping[int, float]):
        self.laid, self.lengths, self.starts = laid, lengths, starts

    @cached_property
    def ends(self) -> dict[int, float]:
        """When every member has sent and received all."""
        times = dict(self.starts)
        for _ in self._parts(times):
            pass
        return times

    @cached_property
    def fits(self) -> bool:
        """Whether stages pass the same links one after another only: else messages would be slower than computed."""
        if self.laid.apart:
            return True
        busy: dict[Any, float] = {}
        for parts in self._parts(dict(self.starts)):
            latest: dict[Any, float] = {}
            for lanes, times in parts:
                for lane, start, end in zip(lanes, times.starts, _left(times)):
                    for link in self.laid.paths[lane]:
                        if start < busy.get(link, -inf) - 1e-9 * (end - start) - 1e-12 * end:
                            return False
                        latest[link] = max(latest.get(link, end), end)
            busy |= latest
        return True

    def at(self, now: float) -> Progress:
        """How far all lanes are at a time."""
        found = Progress([0] * len(self.lengths), [0] * len(self.lengths))
        for parts in self._parts(dict(self.starts)):
            if parts and all(min(times.starts) > now for _, times in parts):
                break
            for lanes, times in parts:
                times.at(now, found, lanes)
        return found

    def _parts(self, times: dict[int, float]) -> Iterator[list[Part]]:
        """Stage by stage; ``times`` of the ranks are when they may begin one, and go on with it."""
        for groups in self.laid.groups:
            parts: list[Part] = [(group.lanes, self._part(group, times)) for group in groups]
            yield parts
            for lanes, part in parts:
                self._go_on(lanes, part, times)

    def _part(self, group: Group, times: Mapping[int, float]) -> Rounds | Pieces:
        lanes = [self.laid.lanes[number] for number in group.lanes]
        starts = [times[lane.source] for lane in lanes]
        both = self.lengths, self.laid.latencies
        lengths, latencies = ([table[number] for number in group.lanes] for table in both)
        if group.ring:
            return Rounds(lanes[0].count, group.before, lengths, latencies, starts)
        return Pieces([lane.count for lane in lanes], group.needs, lengths, latencies, starts)

    def _go_on(self, numbers: Iterable[int], part: Rounds | Pieces, times: dict[int, float]) -> None:
        """A message keeps its sender until it has arrived; pieces until they have left."""
        for number, end in zip(numbers, part.ends()):
            lane = self.laid.lanes[number]
            gone = end - self.laid.latencies[number] if lane.streams else end
            times[lane.source] = max(times[lane.source], gone)
            times[lane.target] = max(times[lane.target], end)


def _left(times: Rounds | Pieces) -> list[float]:
    """When the last message of every lane has left."""
    return [end - latency for end, latency in zip(times.ends(), times.latencies)]
