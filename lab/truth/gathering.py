"""ZeRO-3 that gathers parameters once more for what is computed again."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.program import AllGather, Forward
from simulator.rank import Rank
from simulator.stack import Layer, Program, Rules


@dataclass(frozen=True)
class GatheredAgain(Layer):
    """After the last forward pass of a step every gathering is done twice: recomputation lets go what it gathered.

    It stands below sharding, and only times.
    """

    def rules(self, me: Rank) -> Rules:
        last = len(me.blocks) - 1
        done: set[int] = set()

        def forward(forward: Forward) -> Program:
            yield forward
            if forward.block == me.blocks[last]:
                done.add(me.step)

        def gather(gather: AllGather) -> Program:
            yield gather
            if me.step in done:
                yield gather

        return {Forward: forward, AllGather: gather}
