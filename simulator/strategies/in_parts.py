"""A block's passes as those of its parts: what tensor, context and expert parallelism begin with."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from ..block import Part
from ..passes import BackwardPart, ForwardPart
from ..program import Backward, BackwardInput, BackwardWeight, Forward
from ..rank import Rank
from ..stack import Program, Rules


def in_parts(
    me: Rank, forward_part: Callable[[ForwardPart], Program], backward_part: Callable[[BackwardPart], Program]
) -> Rules:
    """The table of a layer that says what becomes of parts: whole blocks are run part by part.

    Where the model recomputes, all parts of a block run again before its backward pass.
    """

    def forward(forward: Forward) -> Program:
        for part in forward_parts(me, forward):
            yield from forward_part(part)

    def backward(backward: Backward) -> Program:
        if me.model.blocks[backward.block].recomputes:
            yield from forward(Forward(backward.block, backward.microbatch))
        for part in backward_parts(me, backward):
            yield from backward_part(part)

    return {
        Forward: forward,
        Backward: backward,
        ForwardPart: forward_part,
        BackwardPart: backward_part,
        BackwardInput: no_halves,
        BackwardWeight: no_halves,
    }


def forward_parts(me: Rank, forward: Forward) -> tuple[ForwardPart, ...]:
    """The parts of a block in order."""
    return _forward(forward, tuple([part.adds for part in me.model.blocks[forward.block].parts]))


def backward_parts(me: Rank, backward: Backward) -> tuple[BackwardPart, ...]:
    """The parts of a block in reverse."""
    return _backward(backward, tuple([part.adds for part in me.model.blocks[backward.block].parts]))


# Every rank, step and reading of a program has the same passes: making their parts is half of what saying them costs.


@lru_cache(maxsize=2**13)
def _forward(of: Forward, adds: tuple[int | None, ...]) -> tuple[ForwardPart, ...]:
    return tuple([ForwardPart(of.block, of.microbatch, at, len(adds), added) for at, added in enumerate(adds)])


@lru_cache(maxsize=2**13)
def _backward(of: Backward, adds: tuple[int | None, ...]) -> tuple[BackwardPart, ...]:
    parts = [BackwardPart(of.block, of.microbatch, at, len(adds), added) for at, added in enumerate(adds)]
    return tuple(parts[::-1])


def spec(me: Rank, part: ForwardPart | BackwardPart) -> Part:
    """What the model says of a part."""
    return me.model.blocks[part.block].parts[part.at]


def no_halves(half: BackwardInput | BackwardWeight) -> Program:
    """Blocks in parts have no halves: say so."""
    if half:
        raise ValueError(
            f"a block that ranks run together is not run backward in halves; got {half}: use a schedule with whole"
            " backward passes, such as '1f1b' or 'interleaved'"
        )
    yield half
