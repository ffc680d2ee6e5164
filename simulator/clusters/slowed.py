"""Slow links: another wiring, some of whose links have less bandwidth than they should."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from .. import checks
from .wiring import Link, Node, Speed, Wiring

Where = int | Link
"""All links of a rank, both ways; or one link, one way."""


@dataclass(frozen=True)
class Slowed(Wiring):
    """``whole`` with the bandwidth of some links divided by a factor. Ways stay as they were: nobody has noticed.

    >>> from simulator.clusters import Star
    >>> star = Star(3, (Speed(12.0),), (Speed(12.0),))
    >>> tired = Slowed(star, ((1, 3.0), ((0, "switch"), 2.0)))
    >>> [tired.speed(link).bandwidth for link in [(1, "switch"), ("switch", 1), (0, "switch"), ("switch", 0)]]
    [4.0, 4.0, 6.0, 12.0]
    """

    whole: Wiring
    factors: tuple[tuple[Where, float], ...]

    @property
    def ranks(self) -> int:  # type: ignore[override]
        """As many as before."""
        return self.whole.ranks

    @cached_property
    def _by(self) -> dict[Where, float]:
        return dict(self.factors)

    def links(self) -> Iterator[Link]:
        return self.whole.links()

    def speed(self, link: Link) -> Speed:
        speed, factor = self.whole.speed(link), self._factor(link)
        return speed if factor == 1 else speed._replace(bandwidth=speed.bandwidth / factor)

    def _factor(self, link: Link) -> float:
        factor = self._by.get(link, 1.0)
        for end in link:
            factor *= self._by.get(end, 1.0) if isinstance(end, int) else 1.0
        return factor

    def path(self, source: int, target: int) -> Sequence[Node]:
        return self.whole.path(source, target)

    def node(self, rank: int) -> Node:
        return self.whole.node(rank)

    def machine(self, rank: int) -> Hashable:
        return self.whole.machine(rank)

    def rings(self, members: Sequence[int]) -> list[list[int]]:
        return self.whole.rings(members)

    def axes(self, members: Sequence[int]) -> list[list[list[int]]]:
        return self.whole.axes(members)

    def private(self, rank: int) -> tuple[Link, ...]:
        return self.whole.private(rank)

    def kind(self, rank: int) -> Hashable:
        return self.whole.kind(rank), tuple(map(self._factor, self.whole.private(rank)))

    def outline(self, members: Sequence[int]) -> Hashable | None:
        return self.whole.outline(members) if self._ranks_alone else None

    def ample(self, link: Link) -> bool:
        return self.whole.ample(link) and self._factor(link) == 1

    @cached_property
    def _ranks_alone(self) -> bool:
        """Whether every link that is slow is a rank's own, and so no other ranks can tell."""
        links = {where for where in self._by if isinstance(where, tuple)}
        return not links or links.issubset(link for rank in range(self.ranks) for link in self.whole.private(rank))

    @property
    def grouped(self) -> bool:
        return self.whole.grouped

    @property
    def direct(self) -> bool:
        return self.whole.direct


def slowed(whole: Wiring, factors: Mapping[Where, float]) -> Slowed:
    """Check what a user says is slow. Raises ValueError for ranks and links that are not there."""
    checks.kind("slowed", factors, Mapping, 'a dict from ranks or links to factors, as in slowed({0: 4.0})')
    links = {where for where in factors if isinstance(where, tuple)}
    missing: list[Where] = [*links.difference(whole.links() if links else ())]
    missing += [where for where in factors if where not in links and where not in range(whole.ranks)]
    if missing:
        raise ValueError(
            f"what is slowed is a rank, 0 to {whole.ranks - 1}, or a link, a pair of nodes; got"
            f" {', '.join(map(repr, missing))}: cluster.graph.edges lists the links"
        )
    by = [(where, checks.number("factor", by, least=1, of=f"slowed({where!r})")) for where, by in factors.items()]
    named = [(whole.node(where) if isinstance(where, int) else where, factor) for where, factor in by]
    return Slowed(whole, tuple(named))  # type: ignore[arg-type]
