"""Memory that no longer grows with the number of microbatches, read from a program of fewer of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .memory import RankMemory, Text, alone, read
from .rank import Rank

FULL = 3
"""So many microbatches for each stage fill a pipeline, interleaved or not, and then complete gradients."""


def settled(text: Text) -> tuple[RankMemory, ...]:
    """As ``memory``, where only peaks matter: of a program of fewer microbatches, if more make no difference.

    Once a pipeline is full, a schedule such as 1F1B needs no more memory. So the peaks of the first stage are compared
    for 3·p and for 4·p microbatches of the same size, p being the stages and at least 2. Where they agree they are
    those of any more; where they do not, as with GPipe, or an order cannot be given fewer, the whole program is read.
    """
    fewer = _fewer(text)
    if fewer is None:
        return read(text)
    less, more = map(alone, fewer)
    return read(fewer[0]) if (less.peak, less.most) == (more.peak, more.most) else read(text)


def _fewer(text: Text) -> tuple[Text, Text] | None:
    """The same with 3 and with 4 microbatches for each stage; None where that is not possible."""
    order, me = text.stack.order, Rank(text.stack, 0, text.ranks, text.model, 1, text.rule)
    known = getattr(order, "microbatches", None)
    fill = max(2, me.size(order.axis) if order.axis else 1)
    if known != me.microbatches or known <= (FULL + 1) * fill or not isinstance(getattr(order, "schedule", ""), str):
        return None
    if text.model.batch % known or text.stack.slice(me) is not None:
        return None
    return _with(text, FULL * fill), _with(text, (FULL + 1) * fill)


def _with(text: Text, microbatches: int) -> Text:
    known: dict[str, Any] = {"microbatches": microbatches}
    fewer = replace(text.stack.order, **known)
    model = text.model.with_batch(text.model.batch * microbatches // text.stack.order.pieces)
    return replace(text, stack=replace(text.stack, order=fewer), model=model, told=None)
