"""Overflow: ranks that update different pieces of a model skip an update together, or not at all.

A rule that is ``rules.Scaled`` skips an update whose gradients are not finite, and lowers its scale. Ranks that update
with the same gradients do so alike by themselves. Those with shards of them, or with stages, units or experts of the
model, see their own alone: they first add up one number each, which is NaN where a gradient is not finite, and add the
sum to their gradients (Micikevicius et al. 2018, arXiv:1710.03740).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..computing import gradients_of
from ..program import AllReduce, Compute, Reduce, Update
from ..rank import Rank
from ..rules import alarm
from ..stack import Layer, Program, Rules
from ..values import Chunk, Grads, Named, Value

PIECES = ("pipeline", "tensor", "expert")
"""Axes of the rank grid along which ranks have different parameters."""
ALARM = Named("overflow")


@dataclass(frozen=True)
class Agreement(Layer):
    """Before the first update of a step, tell each other whether any gradient is not finite.

    ``Stack.program`` puts it over every strategy whose rule is ``Scaled``. Where ranks update alike it says nothing.

    >>> from simulator import Model, Pipeline, listing, rules
    >>> strategy = Pipeline(microbatches=1, rule=rules.Scaled(rules.SGD(0.1)))
    >>> print("\\n".join(listing(strategy, ranks=2, workload=Model.of_times(blocks=2)).columns[1][-4:]))
    Compute alarm
    AllReduce overflow[0] over pipeline
    Reduce Grads(1) += 1 overflow[0]
    Update Params(1)
    """

    def rules(self, me: Rank) -> Rules:
        known = -1

        def update(update: Update) -> Program:
            nonlocal known
            axes = axes_of(me, update.params)
            if axes and known != me.step:
                known = me.step
                yield from told(me, axes)
            if axes:
                yield Reduce(gradients_of(update.params), ALARM)
            yield update

        return {Update: update}


def told(me: Rank, axes: tuple[str, ...]) -> Program:
    """Add up everybody's alarms."""
    yield Compute(alarm, (Grads(me.blocks),), (ALARM,), sizes=(me.width(Grads(me.blocks)),))
    for axis in axes:
        yield AllReduce(ALARM, over=axis, op="sum")


def axes_of(me: Rank, updated: Value) -> tuple[str, ...]:
    """The axes along which other ranks update other pieces."""
    axes = (*PIECES, "data") if isinstance(updated, Chunk) else PIECES
    return tuple(axis for axis in axes if me.grid.get(axis, 1) > 1)
