"""What a collective is about: the bytes that its members bring, and those that a plan is made for."""

from __future__ import annotations

from .collectives import critical_bytes
from .program import AllGather, AllToAll, Collective, ReduceScatter
from .rank import Rank
from .values import Inner, InnerGrad, Named, whole


def size_of(me: Rank, instruction: Collective) -> float:
    """The bytes of a collective's value; -1 where they may change, as those of a named buffer."""
    scattered = isinstance(instruction, ReduceScatter) and instruction.into is not None
    changing = isinstance(whole(instruction.value), (Named, Inner, InnerGrad)) or scattered or uneven(instruction)
    return -1.0 if changing else me.bytes(instruction.value)


def uneven(instruction: Collective) -> bool:
    """Whether members may bring values of different sizes."""
    return isinstance(instruction, AllToAll) or (isinstance(instruction, AllGather) and instruction.ragged)


def gives_all(instruction: Collective) -> bool:
    """Whether each member gives a value of its own, so that all together is as many times as large."""
    return isinstance(instruction, AllGather) and instruction.into is not None


def critical(instruction: Collective, n: int, size: float) -> float:
    """The bytes that must pass the link of one of n members, one after another; ``size``: what it brings."""
    return critical_bytes(type(instruction), n, size * n if gives_all(instruction) else size)


def given(instruction: Collective, n: int, size: float) -> float:
    """The bytes of what a plan is for: of the whole value; of an all-to-all, those that a rank sends."""
    if isinstance(instruction, AllGather) and instruction.ragged:
        return size * n / (n - 1)
    return size * n if gives_all(instruction) else size
