"""Some ranks of a cluster, numbered anew; their messages take the same links as before."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from .. import checks
from .wiring import Link, Node, Speed, Wiring


@dataclass(frozen=True)
class Subset(Wiring):
    """Rank i of it is rank ``chosen[i]`` of ``whole``. Nodes and links keep the names that they have there.

    >>> from simulator.clusters import Star
    >>> Subset(Star(8, (Speed(1.0),), (Speed(1.0),)), (2, 5)).path(0, 1)
    (2, 'switch', 5)
    """

    whole: Wiring
    chosen: tuple[int, ...]

    @property
    def ranks(self) -> int:  # type: ignore[override]
        """As many as were chosen."""
        return len(self.chosen)

    @cached_property
    def _number(self) -> dict[int, int]:
        return {rank: number for number, rank in enumerate(self.chosen)}

    def links(self) -> Iterator[Link]:
        return self.whole.links()

    def speed(self, link: Link) -> Speed:
        return self.whole.speed(link)

    def path(self, source: int, target: int) -> Sequence[Node]:
        return self.whole.path(self.chosen[source], self.chosen[target])

    def machine(self, rank: int) -> Hashable:
        return self.whole.machine(self.chosen[rank])

    def rings(self, members: Sequence[int]) -> list[list[int]]:
        return [self._renumbered(ring) for ring in self.whole.rings(self._theirs(members))]

    def axes(self, members: Sequence[int]) -> list[list[list[int]]]:
        return [[self._renumbered(line) for line in lines] for lines in self.whole.axes(self._theirs(members))]

    def private(self, rank: int) -> tuple[Link, ...]:
        return self.whole.private(self.chosen[rank])

    def outline(self, members: Sequence[int]) -> Hashable | None:
        return self.whole.outline(self._theirs(members))

    def kind(self, rank: int) -> Hashable:
        return self.whole.kind(self.chosen[rank])

    def node(self, rank: int) -> Node:
        return self.whole.node(self.chosen[rank])

    def ample(self, link: Link) -> bool:
        return self.whole.ample(link)

    @property
    def grouped(self) -> bool:
        return self.whole.grouped

    @property
    def direct(self) -> bool:
        return self.whole.direct

    def _theirs(self, members: Sequence[int]) -> list[int]:
        return [self.chosen[rank] for rank in members]

    def _renumbered(self, ranks: Iterable[int]) -> list[int]:
        return [self._number[rank] for rank in ranks]


def subset(whole: Wiring, chosen: Iterable[int]) -> Subset:
    """Check which ranks a user wants. Raises ValueError for ranks that are not there, or there twice."""
    ranks = tuple(checks.whole("ranks", rank, of="a subset") for rank in chosen)
    if not ranks or len(set(ranks)) < len(ranks) or max(ranks) >= whole.ranks:
        raise ValueError(f"a subset is of one or more ranks from 0 to {whole.ranks - 1}, each once; got {ranks}")
    return Subset(whole, ranks)
