"""PipeDream: asynchronous 1F1B, a pipeline that is never flushed. Each minibatch is a step; the next follow at once.

Stage s of p runs p-1-s minibatches ahead, and updates after every backward pass. So a minibatch would meet other
weights on its way back than on its way forward; each stage therefore stashes the weights of the minibatches in flight,
p-s versions, and puts those of the forward pass back before a backward pass. With stage times F and B:

- n minibatches take (n + p - 1)(F + B): once the pipeline is full there is no bubble;
- a stage holds p-s minibatches at most, as under 1F1B;
- the gradient that stage s applies is p-1-s updates late: w(k+1) = w(k) - lr·g(w(k-p+1+s)).

Source: Narayanan et al. 2019 (arXiv:1806.03377).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..program import Copy, Record, Update
from ..rank import Rank
from ..stack import Order, Program
from ..values import Named, Params, Value
from .pipeline import backward, forward
from .schedules import Place, checked_split, places, require_split


@dataclass(frozen=True)
class PipeDream(Order):
    """Blocks over ranks in stages, a minibatch per step, no flush between steps, weights stashed.

    - ``stages``: ranks along the axis "pipeline"; None: as many as there are.
    - ``split``: blocks of each stage, as of ``Pipeline``.

    It is the same whenever it runs: the delays are fixed by the order, not by who is faster.

    >>> print(PipeDream())
    PipeDream()
    """

    axis: ClassVar[str | None] = "pipeline"
    sized: ClassVar[str | None] = "stages"

    stages: int | None = None
    split: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "split", checked_split(self.split))

    def check(self, ranks: int, blocks: int) -> None:
        require_split(self.split, ranks)
        if blocks < ranks:
            raise ValueError(f"every stage needs a block; got {blocks} block(s) for {ranks} stages: use fewer ranks")

    def blocks(self, me: Rank) -> tuple[int, ...]:
        return self.place(me).blocks

    def place(self, me: Rank) -> Place:
        """Where this rank's part of the model stands."""
        (place,) = places(me.at("pipeline"), me.size("pipeline"), 1, "loop", me.model.asides, self.split)
        return place

    def program(self, me: Rank) -> Program:
        """Run some forwards ahead; then, for each minibatch, a forward of a later one, its backward, an update."""
        ahead = delay(me)
        yield from self.keep(me, 0)
        for step in range(min(ahead, me.total)):
            yield from self.go(me, step)
        for step in me.steps():
            if step + ahead < me.total:
                yield from self.go(me, step + ahead)
            me.step = step
            yield from self.learn(me, step)

    def go(self, me: Rank, step: int) -> Program:
        """The forward pass of a minibatch, which bears a number that no other in flight has."""
        me.step = step
        return (yield from forward(self.place(me), step % me.size("pipeline")))

    def learn(self, me: Rank, step: int) -> Program:
        """The backward pass of a minibatch with the weights of its forward pass; the update of the latest ones."""
        used, mine = max(0, step - delay(me)), Params(me.blocks)
        if used < step:
            yield Copy(stash(me, used), mine)
        yield from backward(self.place(me), step % me.size("pipeline"))
        if used < step:
            yield Copy(stash(me, step), mine)
        yield Record("staleness", step - used)
        yield Update(mine, staleness=step - used, since=stash(me, used) if _needs_past(me) else None)
        yield from self.keep(me, step + 1)

    def keep(self, me: Rank, version: int) -> Program:
        """Stash the weights, unless nobody will ask for them."""
        if delay(me) or _needs_past(me):
            yield Copy(Params(me.blocks), stash(me, version))


def delay(me: Rank) -> int:
    """How many minibatches this stage runs ahead, and so by how many updates its gradients come late: p-1-s."""
    return me.size("pipeline") - 1 - me.at("pipeline")


def stash(me: Rank, version: int) -> Value:
    """Where a version of the weights is kept: in p-s places, for none is needed longer."""
    return Named("version", version % (delay(me) + 1))


def _needs_past(me: Rank) -> bool:
    """Whether the rule asks for the parameters that a gradient was computed with."""
    return me.rule is not None and me.rule.needs_past
