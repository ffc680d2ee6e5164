"""The program that measures collectives, and what the interpreter takes; ``lab.measuring`` reads its times."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

from simulator.program import (
    AllGather,
    AllReduce,
    Barrier,
    Broadcast,
    Collective,
    Compute,
    Measure,
    ReduceScatter,
    Start,
    Wait,
)
from simulator.rank import Rank
from simulator.stack import Layer, Order, Program, Rules
from simulator.values import Named

from .probing import WORK, filled

KINDS: tuple[type[Collective], ...] = (AllReduce, ReduceScatter, AllGather, Broadcast)
BESIDE = "beside"
"""The stream on which something runs beside the program."""
TIMES = 4
"""How often in a step something runs beside the program."""
SIZES = (1, 1_024, 8_192, 65_536, 262_144)
"""Elements of the buffers, four bytes each."""


def nothing() -> tuple[()]:
    """No maths at all."""
    return ()


def before() -> tuple[()]:
    """Nothing, before something."""
    return ()


def after() -> tuple[()]:
    """Nothing, after something."""
    return ()


def ready() -> tuple[()]:
    """Nothing, before what is done already is waited for."""
    return ()


def waited() -> tuple[()]:
    """Nothing, after that."""
    return ()


NOTHING = Compute(nothing)
CPU = Measure("cpu", time.process_time)
"""CPU seconds of the process so far, all of its threads."""


@dataclass(frozen=True)
class Meet(Order):
    """Every type of collective on buffers of several sizes, in ``groups`` groups at once; and some nothings."""

    axis: ClassVar[str | None] = "group"
    sized: ClassVar[str | None] = "groups"

    groups: int = 1
    sizes: tuple[int, ...] = SIZES

    def program(self, me: Rank) -> Program:
        buffers = [Named("buffer", size) for size in self.sizes]
        for buffer in buffers:
            yield Compute(filled(buffer.key), writes=(buffer,))
        for _ in me.steps():
            for buffer in buffers:
                for kind in KINDS:
                    yield Barrier(over="member")
                    yield WORK
                    if kind is AllReduce and buffer is buffers[-1]:
                        yield CPU
                        yield kind(buffer, over="member")
                        yield CPU
                    else:
                        yield kind(buffer, over="member")
                    yield NOTHING
                    yield NOTHING
            for _ in range(TIMES):
                yield from _beside(buffers[0])


def _beside(buffer: Named) -> Program:
    """The smallest all-reduce on a stream while the program computes; marks show what that takes of its time."""
    yield Barrier(over="member")
    yield Compute(before)
    yield Start(AllReduce(buffer, over="member"), on=BESIDE)
    yield Compute(after)
    yield from [WORK] * 4
    yield Compute(ready)
    yield Wait()
    yield Compute(waited)


@dataclass(frozen=True)
class Members(Layer):
    """The ranks of one group."""

    axis: ClassVar[str | None] = "member"

    def rules(self, me: Rank) -> Rules:
        return {}
