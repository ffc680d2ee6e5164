"""What blocks keep beside their parameters, made equal over data-parallel ranks: a BatchNorm's running means, say.

Each rank sees its own samples, so its buffers drift from those of others. That changes no gradient, but it does what is
evaluated. PyTorch's DistributedDataParallel broadcasts the first rank's (Li et al. 2020, arXiv:2006.15704).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..program import AllReduce, Broadcast, Collective, Update
from ..rank import Rank
from ..stack import Layer, Program, Rules
from ..values import Buffers

KINDS = ("broadcast", "mean")


@dataclass(frozen=True)
class SyncBuffers(Layer):
    """Once a step, before its update, every rank along an axis takes the same buffers.

    - ``how``: "broadcast" those of the first rank, or take the "mean" of all.
    - ``over``: the axis.

    Without this layer every rank keeps its own, and those of the first are reported. Batches are still normalised by
    each rank's own samples: data parallelism with a BatchNorm does not give what a single process gives.

    Raises ValueError for another way, and for an axis that the rank grid does not have.

    >>> from simulator import DataParallel, stack
    >>> print(stack(DataParallel(), SyncBuffers("mean")))
    DataParallel() + SyncBuffers(how='mean')
    """

    how: str = "broadcast"
    over: str = "data"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.how not in KINDS:
            raise ValueError(f"buffers are made equal by one of {', '.join(map(repr, KINDS))}; got how={self.how!r}")

    def rules(self, me: Rank) -> Rules:
        kept = [Buffers(block) for block in me.blocks if me.model.blocks[block].buffers and me.share is not None]
        done = -1

        def agree(update: Update) -> Program:
            nonlocal done
            if done != me.step and me.size(self.over) > 1:
                for buffers in kept:
                    yield self._agreement(buffers)
            done = me.step
            yield update

        return {Update: agree}

    def _agreement(self, buffers: Buffers) -> Collective:
        if self.how == "mean":
            return AllReduce(buffers, over=self.over)
        return Broadcast(buffers, over=self.over)
