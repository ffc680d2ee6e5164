"""A script of messages laid over the links of a cluster: how long each of them takes where nobody else is.

The lanes of a stage are busy together, so each has its part of the links that it shares with others of them: a link's
time goes by the bytes that they bring, and a lane is as fast as its tightest link lets it. So it is as fast as in a
flow of all their bytes, whoever of them pauses; what else passes the links can only slow it down.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any

from .cluster import Cluster
from .fairness import Path
from .lanes import Lane, Script

Bytes = float | Mapping[int, float]
"""Of the value on its way; or those that each rank sends."""


@dataclass(frozen=True)
class Group:
    """Lanes of one stage whose messages wait for each other: rings, ``before[lane]`` being the lane before, or others.

    ``lanes`` are their numbers, ``needs`` the places in the group of those that each waits for.
    """

    lanes: tuple[int, ...]
    needs: tuple[tuple[int, ...], ...]
    ring: bool

    @property
    def before(self) -> tuple[int, ...]:
        """In a ring, the lane before each."""
        return tuple(needed[0] for needed in self.needs)


@dataclass(frozen=True, eq=False)
class Laid:
    """A script on a cluster: for every lane its links and the latency [s] of its messages."""

    script: Script
    paths: list[Path]
    latencies: list[float]
    capacity: Callable[[Any], float]

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """Those of the script."""
        return self.script.lanes

    @cached_property
    def stages(self) -> list[list[int]]:
        """The lanes of each stage."""
        found: list[list[int]] = [[] for _ in self.script.depths]
        for number, lane in enumerate(self.lanes):
            found[lane.stage].append(number)
        return found

    @cached_property
    def lengths(self) -> list[float]:
        """How long each lane takes for one message [s], for one byte of the value."""
        found = [0.0] * len(self.lanes)
        for stage in self.stages:
            load: defaultdict[Any, float] = defaultdict(float)
            for number in stage:
                lane = self.lanes[number]
                for link in self.paths[number]:
                    load[link] += lane.share * lane.count
            busy = {link: nbytes / self.capacity(link) for link, nbytes in load.items()}
            for number in stage:
                found[number] = max(map(busy.__getitem__, self.paths[number]), default=0.0) / self.lanes[number].count
        return found

    @cached_property
    def rates(self) -> list[float]:
        """How fast each lane can be at most [B/s]."""
        return [lane.share / length if length else inf for lane, length in zip(self.lanes, self.lengths)]

    @cached_property
    def groups(self) -> list[list[Group]]:
        """The lanes of each stage by those that wait for each other: rings of one size together."""
        found = []
        for stage in self.stages:
            by: dict[int, list[int]] = {}
            for number in stage:
                lane = self.lanes[number]
                by.setdefault(lane.count if self._turns(number) else 0, []).append(number)
            found.append([self._group(numbers, count > 0) for count, numbers in by.items()])
        return found

    def _turns(self, number: int) -> bool:
        return any(ahead for _, ahead in self.lanes[number].needs)

    def _group(self, numbers: list[int], ring: bool) -> Group:
        place = {number: at for at, number in enumerate(numbers)}
        needs = tuple(tuple([place[needed] for needed, _ in self.lanes[number].needs]) for number in numbers)
        return Group(tuple(numbers), needs, ring)

    @cached_property
    def waiting(self) -> list[list[int]]:
        """For each lane those that wait for what arrives on it."""
        found: list[list[int]] = [[] for _ in self.lanes]
        for number, lane in enumerate(self.lanes):
            for needed, _ in lane.needs:
                found[needed].append(number)
        return found

    @cached_property
    def starting(self) -> dict[tuple[int, int], list[int]]:
        """For each rank, stage by stage, the lanes on which it sends."""
        found: dict[tuple[int, int], list[int]] = {}
        for number, lane in enumerate(self.lanes):
            found.setdefault((lane.source, lane.stage), []).append(number)
        return found

    @cached_property
    def links(self) -> list[Any]:
        """Of all lanes, each once."""
        return list(dict.fromkeys(link for path in self.paths for link in path))

    @cached_property
    def apart(self) -> bool:
        """Whether no link is used in several stages."""
        used = [{link for number in stage for link in self.paths[number]} for stage in self.stages]
        return sum(map(len, used)) == len(self.links)


def laid_on(cluster: Cluster, script: Script, latencies: Iterable[float]) -> Laid:
    """A script on the routes of a cluster."""
    known: dict[tuple[int, int], Path] = {}
    paths = [
        known.setdefault((lane.source, lane.target), dict.fromkeys(cluster.route(lane.source, lane.target), 1.0))
        for lane in script.lanes
    ]
    return Laid(script, paths, list(latencies), cluster.bandwidth)


def bytes_of(laid: Laid, size: Bytes) -> list[float]:
    """Of one message on every lane."""
    if isinstance(size, Mapping):
        return [lane.share * size[lane.source] for lane in laid.lanes]
    return [lane.share * size for lane in laid.lanes]


def seconds_of(laid: Laid, size: Bytes) -> list[float]:
    """Until one message has left each lane, alone."""
    if isinstance(size, Mapping):
        return [length * size[lane.source] for lane, length in zip(laid.lanes, laid.lengths)]
    return [length * size for length in laid.lengths]
