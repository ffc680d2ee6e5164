"""All ranks on one switch that is never the bottleneck."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from .wiring import Link, Node, Speed, Wiring

SWITCH = "switch"


@dataclass(frozen=True)
class Star(Wiring):
    """Ranks around a switch. ``up`` and ``down``: to and from it, one for all ranks or one for each.

    >>> Star(3, (Speed(10.0),), (Speed(10.0),)).path(0, 2)
    (0, 'switch', 2)
    """

    ranks: int
    up: tuple[Speed, ...]
    down: tuple[Speed, ...]

    def links(self) -> Iterator[Link]:
        for rank in range(self.ranks):
            yield rank, SWITCH
            yield SWITCH, rank

    def speed(self, link: Link) -> Speed:
        source, target = link
        if target == SWITCH:
            return self.up[source % len(self.up)]  # type: ignore[operator]
        return self.down[target % len(self.down)]  # type: ignore[operator]

    def path(self, source: int, target: int) -> Sequence[Node]:
        return (source, SWITCH, target) if source != target else (source,)

    def private(self, rank: int) -> tuple[Link, ...]:
        return (rank, SWITCH), (SWITCH, rank)

    def kind(self, rank: int) -> Hashable:
        if len(self.up) == len(self.down) == 1:
            return None
        return self.up[rank % len(self.up)], self.down[rank % len(self.down)]

    def outline(self, members: Sequence[int]) -> Hashable | None:
        return ()
