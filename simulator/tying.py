"""Parameters that several blocks use, such as an embedding that also scores the output (Press and Wolf 2017).

They belong to the first block that uses them. A rank that has that block has nothing more to do: both blocks use the
same memory. A rank that has only a later one has a copy: each step it gets the parameters before it first uses them,
and after its last backward pass sends what it adds to their gradient, which the owner adds before its own is complete.
Source of the idea: arXiv:1608.05859.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from .program import Backward, BackwardWeight, Forward, Free, Recv, Reduce, Send, Update
from .rank import Rank
from .rewriting import same
from .stack import Layer, Program, Rules, Stack
from .values import Grads, Named, Tied, Value

Places = tuple[int, ...]
"""Positions along the axis over which an order splits blocks."""


@dataclass(frozen=True)
class Tying(Layer):
    """The layer nearest the instructions, wherever blocks of the model are tied; ``whole`` says who has which block."""

    looks_after: ClassVar[tuple[type[Value], ...]] = (Grads,)

    whole: Stack

    def rules(self, me: Rank) -> Rules:
        if me.share is None:  # a server computes no block
            return {Backward: same, BackwardWeight: same}
        text = Text(me, self.whole)
        return {Forward: text.forward, Backward: text.backward, BackwardWeight: text.backward, Update: text.update}


class Text:
    """What one rank says: ``lent`` are ties of its own blocks, ``borrowed`` those of blocks that it has not."""

    def __init__(self, me: Rank, whole: Stack):
        self.me, self.over = me, whole.order.axis or "world"
        self.ties = {block: me.whole_model.blocks[block].ties for block in me.blocks}
        used = {tie for ties in self.ties.values() for tie in ties}
        stages = _stages(me, whole)
        self.borrowed = {tie: _owner(tie, stages) for tie in sorted(used, key=str) if tie.block not in me.blocks}
        self.lent = _lent(me, stages)
        if (self.lent or self.borrowed) and me.reduced is not None and me.reduced.accumulate:
            raise ValueError(
                "gradients of parameters that are tied across stages travel in the type in which blocks compute: leave"
                " accumulate=True out, or untie them"
            )
        self.begun: set[Tied] = set()
        self.forwards, self.backwards = Counter[int](), Counter[int]()

    def forward(self, forward: Forward) -> Program:
        """Before the first pass of a step the owner sends its parameters, and who borrows them takes them."""
        self.forwards[forward.block] += 1
        for tie, places in self.lent.items():
            if tie.block == forward.block and self._begins(tie):
                for place in places:
                    yield Send(tie, to=place, over=self.over)
        for tie in self.ties[forward.block]:
            if tie in self.borrowed and self._begins(tie):
                yield Recv(tie, source=self.borrowed[tie], over=self.over)
        yield forward

    def backward(self, backward: Backward | BackwardWeight) -> Program:
        """After the last pass of a step who borrows sends the gradient; the owner adds it to its own."""
        yield backward
        self.backwards[backward.block] += 1
        for tie in self.ties[backward.block]:
            if tie in self.borrowed and self._done(self._users(tie)):
                yield Send(tie.gradient, to=self.borrowed[tie], over=self.over)
                yield Free(tie.gradient)
        if self._done([backward.block]):
            yield from self._collect(backward.block)

    def _collect(self, block: int) -> Program:
        """What others, and later blocks here, have added to the gradient of a block's parameters."""
        late = [user for tie in self._of(block) for user in self._users(tie) if not self._done([user])]
        if late:
            raise ValueError(
                f"the gradient of tied parameters is complete when their first block has run backward; on rank"
                f" {self.me.rank} block {late[0]}, tied to block {block}, does so later: use a schedule such as '1f1b'"
            )
        for number, (tie, places) in enumerate(self.lent.items()):
            for place in places if tie.block == block else ():
                arrived = Named("tied gradient", number)
                yield Recv(tie.gradient, source=place, over=self.over, into=arrived)
                yield Reduce(tie.gradient, arrived)

    def update(self, update: Update) -> Program:
        """The next step begins; nothing of this one may be under way."""
        if (self.lent or self.borrowed) and self.forwards != self.backwards:
            raise ValueError(
                f"parameters that are tied across stages change only when no microbatch is under way; rank"
                f" {self.me.rank} updates between a forward pass and its backward pass: use a pipeline that is flushed,"
                " or untie them"
            )
        self.begun.clear()
        self.forwards.clear()
        self.backwards.clear()
        yield update

    def _begins(self, tie: Tied) -> bool:
        """Whether this is the first use in a step."""
        first = tie not in self.begun
        self.begun.add(tie)
        return first

    def _done(self, blocks: Iterable[int]) -> bool:
        return all(self.backwards[block] == self.me.microbatches for block in blocks)

    def _users(self, tie: Tied) -> list[int]:
        return [block for block, ties in self.ties.items() if tie in ties]

    def _of(self, block: int) -> set[Tied]:
        return {tie for ties in self.ties.values() for tie in ties if tie.block == block}


def _stages(me: Rank, whole: Stack) -> list[tuple[int, ...]]:
    """The blocks of each rank along the axis over which the order splits them; of one's own alone where it does not."""
    if whole.order.axis is None or len(me.blocks) == len(me.whole_model.blocks):
        return [me.blocks]
    rest = me.ranks, me.whole_model, me.total, me.rule
    return [Rank(whole, rank, *rest).blocks for rank in Rank(whole, 0, *rest).group(whole.order.axis)]


def _owner(tie: Tied, stages: list[tuple[int, ...]]) -> int:
    return next(place for place, blocks in enumerate(stages) if tie.block in blocks)


def _lent(me: Rank, stages: list[tuple[int, ...]]) -> dict[Tied, Places]:
    """To whom the parameters of one's own blocks are lent."""
    blocks = me.whole_model.blocks
    every = {tie for block in blocks for tie in block.ties if tie.block in me.blocks}
    found = {}
    for tie in sorted(every, key=str):
        borrow = [tie.block not in stage and any(tie in blocks[block].ties for block in stage) for stage in stages]
        if any(borrow):
            found[tie] = tuple(place for place, borrows in enumerate(borrow) if borrows)
    return found
