"""Rings and tori: ranks joined to their neighbours along every dimension, as TPUs are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from .wiring import Link, Node, Speed, Wiring, choice


@dataclass(frozen=True)
class Grid(Wiring):
    """A torus of ``shape``; ``each``: of every link, one direction. The last dimension counts fastest.

    A message goes along the first dimension, then the second, … each time the shorter way round.

    >>> Grid((3, 4), Speed(1.0)).path(0, 6)
    (0, 4, 5, 6)
    """

    shape: tuple[int, ...]
    each: Speed
    seed: int = 0

    @property
    def ranks(self) -> int:  # type: ignore[override]
        """As many as the torus has places."""
        return prod(self.shape)

    def links(self) -> Iterator[Link]:
        for rank in range(self.ranks):
            place = self._place(rank)
            beside = [self._moved(place, axis, by) for axis, n in enumerate(self.shape) if n > 1 for by in (1, -1)]
            yield from ((rank, other) for other in dict.fromkeys(beside))

    def speed(self, link: Link) -> Speed:
        return self.each

    def path(self, source: int, target: int) -> Sequence[Node]:
        nodes, place, end = [source], self._place(source), self._place(target)
        for axis, n in enumerate(self.shape):
            ahead = (end[axis] - place[axis]) % n
            back = 2 * ahead > n or (2 * ahead == n and choice(source, target, self.seed + axis, 2) == 1)
            for _ in range(n - ahead if back else ahead):
                nodes.append(self._moved(place, axis, -1 if back else 1))
                place = self._place(nodes[-1])
        return tuple(nodes)

    def rings(self, members: Sequence[int]) -> list[list[int]]:
        """A snake through the whole torus, both ways; members that are only a part of it: their order, both ways."""
        order = self._snake() if sorted(members) == list(range(self.ranks)) else list(members)
        return [order, order[::-1]]

    def axes(self, members: Sequence[int]) -> list[list[list[int]]]:
        """Of the whole torus, the rings along each dimension."""
        if sorted(members) != list(range(self.ranks)):
            return []
        found = []
        for axis, n in enumerate(self.shape):
            heads = [rank for rank in range(self.ranks) if self._place(rank)[axis] == 0]
            lines = [[self._moved(self._place(head), axis, by) for by in range(n)] for head in heads]
            found += [lines] if n > 1 else []
        return found

    @property
    def grouped(self) -> bool:
        return True

    def _snake(self) -> list[int]:
        """All ranks, each a neighbour of the one before: every line is walked the other way than the last one."""
        found = []
        for steps in product(*map(range, self.shape)):
            place, passed = [], 0
            for n, step in zip(self.shape, steps):
                place.append(n - 1 - step if passed % 2 else step)
                passed = passed * n + step
            found.append(self._rank(place))
        return found

    def _place(self, rank: int) -> list[int]:
        place = []
        for n in reversed(self.shape):
            rank, at = divmod(rank, n)
            place.append(at)
        return place[::-1]

    def _rank(self, place: Sequence[int]) -> int:
        rank = 0
        for n, at in zip(self.shape, place):
            rank = rank * n + at
        return rank

    def _moved(self, place: Sequence[int], axis: int, by: int) -> int:
        moved = list(place)
        moved[axis] = (moved[axis] + by) % self.shape[axis]
        return self._rank(moved)
