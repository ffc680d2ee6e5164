"""One machine in which every two ranks have a link of their own, as accelerators of one board often do."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from .wiring import Link, Node, Speed, Wiring


@dataclass(frozen=True)
class Mesh(Wiring):
    """``ranks``·(``ranks``−1) links: two ranks share one of them, all ranks together use them all.

    >>> len(list(Mesh(8, Speed(64e9)).links()))
    56
    """

    ranks: int
    each: Speed

    def links(self) -> Iterator[Link]:
        return ((a, b) for a in range(self.ranks) for b in range(self.ranks) if a != b)

    def speed(self, link: Link) -> Speed:
        return self.each

    def path(self, source: int, target: int) -> Sequence[Node]:
        return (source, target) if source != target else (source,)

    def machine(self, rank: int) -> Hashable:
        return 0

    @property
    def grouped(self) -> bool:
        return True

    @property
    def direct(self) -> bool:
        return True
