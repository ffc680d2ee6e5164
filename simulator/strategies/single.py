"""Single: one rank does everything. The truth with which all other strategies are compared."""

from __future__ import annotations

from dataclasses import dataclass

from ..program import Backward, Forward, Load, Loss, Update
from ..rank import Rank
from ..stack import Order, Program
from ..values import Params


@dataclass(frozen=True)
class Single(Order):
    """One rank, the whole batch: forward through all blocks, backward through all blocks, update."""

    def program(self, me: Rank) -> Program:
        for _ in me.steps():
            yield from gradient(me)
            yield Update(Params(me.blocks))


def gradient(me: Rank) -> Program:
    """One forward and one backward pass through all blocks."""
    yield Load()
    for block in me.blocks:
        yield Forward(block)
    yield Loss(len(me.blocks))
    for block in reversed(me.blocks):
        yield Backward(block)
