"""All ranks of a run: what a strategy says of them is asked once of those who stand alike where it asks."""

from __future__ import annotations

from collections.abc import Callable

from .model import Model
from .observed import WORLD, Observed, axis_of
from .rank import Rank
from .rules import Rule
from .stack import Stack

FEW = 64
"""So many ranks are made one by one: to look for those that stand alike takes longer."""


class Answers:
    """What ``ask`` gives, by the places of ranks along the axes on which that depends."""

    def __init__(self, stack: Stack, ranks: int, ask: Callable[[Rank], object]):
        grid, strides = stack.laid_out(ranks)
        self.grid, self.strides, self.ask = grid | {WORLD: ranks}, strides | {WORLD: 1}, ask
        self.axes: tuple[str, ...] = ()
        self.known: dict[tuple[int, ...], Rank] = {}

    def like(self, rank: int) -> Rank | None:
        """A rank that gets the same answer, if one is known: what was asked of it, this one would answer alike."""
        return self.known.get(self._places(rank))

    def learn(self, me: Rank) -> None:
        """Note what is asked of a rank."""
        asked = Observed(me)
        self.ask(asked)  # type: ignore[arg-type]
        if more := {axis_of(question) for question in asked.questions}.difference(self.axes):
            self.axes += tuple(sorted(more))
            self.known = {self._places(other.rank): other for other in self.known.values()}
        self.known[self._places(me.rank)] = me

    def _places(self, rank: int) -> tuple[int, ...]:
        return tuple([rank // self.strides[axis] % self.grid[axis] for axis in self.axes])


def all_ranks(stack: Stack, ranks: int, model: Model, steps: int, rule: Rule | None = None) -> list[Rank]:
    """Every rank at its beginning, as ``Rank`` makes it.

    >>> from simulator import Hybrid
    >>> everybody = all_ranks(Hybrid(data=16, tensor=8), 128, Model.of_times(batch=128).in_parts(units=8), steps=1)
    >>> [me.share for me in everybody][6:10], len({id(me.model) for me in everybody})
    ([(0, 16), (0, 16), (1, 16), (1, 16)], 1)
    """
    if ranks <= FEW:
        return [Rank(stack, rank, ranks, model, steps, rule) for rank in range(ranks)]
    blocks = Answers(stack, ranks, lambda me: (stack.cut(me), stack.order.blocks(me)))
    shares = Answers(stack, ranks, lambda me: (stack.share(me), stack.slice(me)))
    found = []
    for rank in range(ranks):
        one, other = blocks.like(rank), shares.like(rank)
        if one is None or other is None:
            me = Rank(stack, rank, ranks, model, steps, rule)
            blocks.learn(me)
            shares.learn(me)
        else:
            me = one.beside(rank, other.share, other.slice)
        found.append(me)
    return found
