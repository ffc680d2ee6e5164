"""Sets of places along a line, as a few intervals: which elements of a flat vector are there."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

Interval = tuple[int, int]
"""First, and one past the last."""


class Intervals:
    """Disjoint intervals in ascending order; those that touch are one.

    >>> places = Intervals([(0, 10)])
    >>> places.remove([(2, 4)])
    >>> places.size, places.found
    (8, [(0, 2), (4, 10)])
    """

    def __init__(self, found: Iterable[Interval] = ()):
        self.firsts: list[int] = []
        self.lasts: list[int] = []
        self.size = 0
        self.add(found)

    @property
    def found(self) -> list[Interval]:
        """All of them."""
        return list(zip(self.firsts, self.lasts))

    def add(self, more: Iterable[Interval]) -> None:
        """These are there, whether they were or not."""
        for first, last in more:
            if first < last:
                # Of those that touch it, and of itself, one interval is made.
                begin, end = bisect_left(self.lasts, first), bisect_right(self.firsts, last)
                whole = min([first, *self.firsts[begin:end]]), max([last, *self.lasts[begin:end]])
                self._put(begin, end, [whole])

    def remove(self, less: Iterable[Interval]) -> None:
        """These are not there any more."""
        for first, last in less:
            if first < last:
                begin, end = bisect_right(self.lasts, first), bisect_left(self.firsts, last)
                rest = [(a, min(b, first)) for a, b in zip(self.firsts[begin:end], self.lasts[begin:end])]
                rest += [(max(a, last), b) for a, b in zip(self.firsts[begin:end], self.lasts[begin:end])]
                self._put(begin, end, [(a, b) for a, b in rest if a < b])

    def _put(self, begin: int, end: int, instead: list[Interval]) -> None:
        """Replace some of the intervals by others."""
        gone = zip(self.firsts[begin:end], self.lasts[begin:end])
        self.size += sum(last - first for first, last in instead) - sum(last - first for first, last in gone)
        self.firsts[begin:end] = [first for first, _ in instead]
        self.lasts[begin:end] = [last for _, last in instead]
