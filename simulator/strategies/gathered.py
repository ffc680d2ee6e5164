"""Parameters that are there only while they are used: gathered before a bucket is, freed after it (ZeRO, stage 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..program import AllGather, Backward, BackwardInput, BackwardWeight, Forward, Free, Load, Start, Wait
from ..rank import Rank
from ..rewriting import same
from ..stack import Program, Rules
from ..values import Params
from .buckets import Bucket, Buckets

Reduce = Callable[[Backward | BackwardWeight], Program]
"""What follows a backward pass: the rule that reduces gradients."""


class Gathered:
    """The rules by which one rank gathers buckets and frees them. Between steps nothing is gathered."""

    def __init__(self, me: Rank, buckets: Buckets, filled: Sequence[Bucket], prefetch: int, reduce: Reduce):
        self.me, self.of, self.filled, self.prefetch, self.reduce = me, buckets.of, sorted(filled), prefetch, reduce
        self.here: set[Bucket] = set()
        self.begun = False

    def rules(self) -> Rules:
        """A table from passes to what replaces them."""
        return {Load: self.load, Forward: self.forward, Backward: self.backward, BackwardInput: self.backward_input}

    def _begin(self) -> Program:
        """Before anything else a rank lets go of what is not its own."""
        if not self.begun and self.me.step == 0:
            self.begun = True
            for bucket in self.filled:
                yield self._free(bucket)

    def load(self, load: Load) -> Program:
        """The first that many ranks do, but for what is loaded ahead on a stream."""
        if load.step is None:
            yield from self._begin()
        yield load

    def forward(self, forward: Forward) -> Program:
        """From the first of a bucket's blocks to its last."""
        yield from self._begin()
        bucket = self.of[forward.block]
        yield from self._gather(bucket, ahead=1)
        yield from self._gather_tied(forward.block)
        yield forward
        yield from self._let_go_tied(forward.block)
        if forward.block == bucket[-1]:
            yield from self._let_go(bucket)

    def backward(self, backward: Backward) -> Program:
        """From the last of a bucket's blocks to its first."""
        yield from self._around(backward, self.reduce(backward))

    def backward_input(self, backward: BackwardInput) -> Program:
        """The same; the weights' half needs no parameters."""
        yield from self._around(backward, same(backward))

    def _around(self, backward: Backward | BackwardInput, program: Program) -> Program:
        bucket = self.of[backward.block]
        yield from self._gather(bucket, ahead=-1)
        yield from self._gather_tied(backward.block)
        for instruction in program:
            yield instruction
            if instruction == backward:
                yield from self._let_go_tied(backward.block)
                if backward.block == bucket[0]:
                    yield from self._let_go(bucket)

    def _gather(self, bucket: Bucket, ahead: int) -> Program:
        """Have a bucket here, and start to gather those that come next in this direction."""
        if bucket not in self.filled:
            return
        place = self.filled.index(bucket)
        for step in range(self.prefetch + 1):
            if 0 <= place + step * ahead < len(self.filled):
                following = self.filled[place + step * ahead]
                if following not in self.here:
                    self.here.add(following)
                    yield Start(AllGather(Params(following), over="data"), on="gather")
        yield Wait(Params(bucket))

    def _tied(self, block: int) -> list[Bucket]:
        """The other buckets here that have parameters which a block uses too."""
        owners = {tie.block for tie in self.me.model.blocks[block].ties} & self.of.keys()
        return sorted({self.of[owner] for owner in owners} - {self.of[block]})

    def _gather_tied(self, block: int) -> Program:
        """Have tied parameters here; if they are to come soon, they come now."""
        for bucket in self._tied(block):
            if bucket not in self.here:
                self.here.add(bucket)
                yield Start(AllGather(Params(bucket), over="data"), on="gather")
            yield Wait(Params(bucket))

    def _let_go_tied(self, block: int) -> Program:
        for bucket in self._tied(block):
            yield from self._let_go(bucket)

    def _let_go(self, bucket: Bucket) -> Program:
        if bucket in self.here:
            self.here.remove(bucket)
            yield self._free(bucket)

    def _free(self, bucket: Bucket) -> Free:
        value = Params(bucket)
        return Free(value, keep=self.me.chunk(value, "data"))
