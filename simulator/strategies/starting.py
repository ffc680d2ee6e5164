"""Ranks that begin alike: before they compute, replicas take the parameters of the first of them."""

from __future__ import annotations

from collections.abc import Iterable

from ..instruction import Instruction
from ..program import Broadcast, Forward, Load
from ..rank import Rank
from ..rewriting import Rewrite
from ..stack import Program, Rules
from ..values import Params
from .buckets import Bucket


def alike(me: Rank, buckets: Iterable[Bucket], rules: Rules) -> Rules:
    """The same rules, but that a broadcast of all parameters along "data" goes before the first Load or Forward.

    In a run that goes on after its first step nothing is broadcast.
    """
    left = [Broadcast(Params(bucket), over="data") for bucket in buckets if me.elements(Params(bucket))]

    def after(rule: Rewrite | None) -> Rewrite:
        def first(instruction: Instruction) -> Program:
            while left and me.step == 0:
                yield left.pop(0)
            return (yield from rule(instruction)) if rule is not None else (yield instruction)

        return first

    return {**rules, Load: after(rules.get(Load)), Forward: after(rules.get(Forward))}
