"""A fat tree of two tiers: leaf switches with ranks, and spine switches that join them (Al-Fares et al. 2008)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .wiring import Link, Node, Speed, Wiring, choice


@dataclass(frozen=True)
class Tiers(Wiring):
    """``per_leaf`` ranks on each leaf, and each leaf on all ``spines``; which spine carries a message, ranks decide.

    - ``host``: of the links between ranks and leaves; ``trunk``: of those between leaves and spines.
    - ``seed``: another seed, other spines.

    >>> Tiers(4, 2, 1, Speed(10.0), Speed(10.0)).path(0, 2)
    (0, ('leaf', 0), ('spine', 0), ('leaf', 1), 2)
    """

    ranks: int
    per_leaf: int
    spines: int
    host: Speed
    trunk: Speed
    seed: int = 0

    def links(self) -> Iterator[Link]:
        for rank in range(self.ranks):
            leaf = ("leaf", rank // self.per_leaf)
            yield rank, leaf
            yield leaf, rank
        leaves = range(-(-self.ranks // self.per_leaf))
        for at, spine in ((at, spine) for at in leaves for spine in range(self.spines) if len(leaves) > 1):
            yield ("leaf", at), ("spine", spine)
            yield ("spine", spine), ("leaf", at)

    def speed(self, link: Link) -> Speed:
        return self.host if any(isinstance(end, int) for end in link) else self.trunk

    def path(self, source: int, target: int) -> Sequence[Node]:
        if source == target:
            return (source,)
        first, last = source // self.per_leaf, target // self.per_leaf
        if first == last:
            return source, ("leaf", first), target
        spine = ("spine", choice(source, target, self.seed, self.spines))
        return source, ("leaf", first), spine, ("leaf", last), target
