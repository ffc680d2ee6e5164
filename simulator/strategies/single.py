"""Single: one rank does everything. The truth with which all other strategies are compared."""

from __future__ import annotations

from dataclasses import dataclass

from .. import checks
from ..program import Backward, Forward, Load, Loss, Update
from ..rank import Rank
from ..stack import Order, Program
from ..values import Params


@dataclass(frozen=True)
class Single(Order):
    """One rank, the whole batch: forward through all blocks, backward through all blocks, update.

    - ``microbatches``: into how many parts the batch is cut; their gradients are added up before the update (gradient
      accumulation), which needs less memory and gives the same.

    Raises ValueError for fewer than one.

    >>> from simulator import Model, cluster, simulate
    >>> simulate(Single(), Model.of_times(blocks=2), cluster("ideal", ranks=1), steps=3).makespan
    18.0
    """

    microbatches: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("microbatches", self.microbatches, least=1)

    @property
    def pieces(self) -> int:
        return self.microbatches

    def program(self, me: Rank) -> Program:
        for _ in me.steps():
            for microbatch in range(self.microbatches):
                yield from gradient(me, microbatch)
            yield Update(Params(me.blocks))


def gradient(me: Rank, microbatch: int = 0) -> Program:
    """One forward and one backward pass through all blocks."""
    yield Load(microbatch)
    for block in me.blocks:
        yield Forward(block, microbatch)
    yield Loss(len(me.blocks), microbatch)
    for block in reversed(me.blocks):
        yield Backward(block, microbatch)
