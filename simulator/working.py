"""What a block needs only while it runs: what passes between its parts, and what it recomputes.

A block that ranks run together is a program of its own, the same for every microbatch and every block of its shape. So
that program is looked at once, and in the rank's program the block stands as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from .block import Block, saved
from .cutting import Cut
from .passes import Backward, BackwardInput, BackwardPart, BackwardWeight, Forward
from .precision import Precision
from .program import Instruction
from .rank import Rank
from .rewriting import Table, same, through
from .stack import Layer, Stack
from .values import Act, ActGrad

Pass = Forward | Backward | BackwardInput | BackwardWeight


@dataclass(frozen=True)
class Peaks:
    """The most bytes that a block holds while it runs forward, and backward, of one microbatch."""

    forward: float
    backward: float


class Again:
    """What the parts of blocks compute again in their backward passes, and hold only as long as these run."""

    def __init__(self, me: Rank):
        self.me = me

    def of(self, instruction: Instruction) -> float:
        """Bytes beside, while an instruction runs; 0 where it is no backward pass of a part."""
        if not isinstance(instruction, BackwardPart):
            return 0.0
        part = self.me.model.blocks[instruction.block].parts[instruction.at]
        return part.again_bytes * self.me.samples(instruction.microbatch)


class Working:
    """What the blocks of one rank need while they run, beside what a ledger counts for whole blocks.

    ``again`` gives the rank at its beginning; ``layers`` are those that run blocks in parts.
    """

    def __init__(self, again: Callable[[], Rank], layers: tuple[Layer, ...]):
        self.again, self.me, self.layers = again, again(), layers
        self.known: dict[object, Peaks] = {}

    def of(self, instruction: Instruction) -> float:
        """Bytes beside, while an instruction runs; 0 where it is no pass through a block."""
        if not isinstance(instruction, (Forward, Backward, BackwardInput)):
            return 0.0
        peaks = self._peaks(instruction)
        return peaks.forward if isinstance(instruction, Forward) else peaks.backward

    def _peaks(self, one: Forward | Backward | BackwardInput) -> Peaks:
        block, last = self.me.model.blocks[one.block], one.block == len(self.me.model.blocks) - 1
        place = id(block), one.block == 0, last, self.me.samples(one.microbatch), isinstance(one, BackwardInput)
        if place not in self.known:
            self.known[place] = self._in_parts(one) if self.layers else self._recomputed(block, one.microbatch)
        return self.known[place]

    def _recomputed(self, block: Block, microbatch: int) -> Peaks:
        """Of a block in one piece: what it computes again, all of it, or parts of it, each when it comes to them."""
        again = saved(block.parts) if block.recomputes and block.parts else None
        beyond = max(recomputed(block), (again or 0.0) - block.input_bytes)
        return Peaks(0.0, beyond * self.me.samples(microbatch))

    def _in_parts(self, one: Forward | Backward | BackwardInput) -> Peaks:
        """Of a block in parts: the most that its parts hold, beyond what counts for the block as a whole."""
        there, kind = Forward(one.block, one.microbatch), BackwardInput if isinstance(one, BackwardInput) else Backward
        forward, backward = self._held(there, kind(one.block, one.microbatch))
        kept = self._kept(one)
        out, slope = (self.me.bytes(value(one.block + at, one.microbatch)) for at, value in ((1, Act), (0, ActGrad)))
        return Peaks(
            max(0.0, forward - kept - out),
            max(0.0, backward - kept - (slope if one.block else 0.0)),
        )

    def _held(self, *passes: Pass) -> list[float]:
        """The most that each pass holds in parts, with what the block keeps."""
        from .ledger import Ledger

        me = self.again()
        ledger = Ledger(me, (), Precision(0, 0, 0, 0), Again(me))
        always = ledger.sums[False]  # what blocks keep without learning it
        program = [(at, instruction) for at, one in enumerate(passes) for instruction in self._parts(me, one)]
        moments = ledger.walk(program)
        return [max(one.held.total for one in moments if one.step == at) - always for at in range(len(passes))]

    def _parts(self, me: Rank, one: Pass) -> Iterable[Instruction]:
        program = same(one)
        for layer in self.layers:
            program = through(Table(layer, me), program)
        return program

    def _kept(self, one: Pass) -> float:
        block = self.me.model.blocks[one.block]
        return self.me.samples(one.microbatch) * (block.saved_bytes or 0.0)


def recomputed(block: Block) -> float:
    """Bytes per sample by which a block that computes some of its parts again grows beyond what it keeps.

    Parts go backward from the last to the first: when one computes again, those after it have let go what they kept.

    >>> from simulator.model import Part
    >>> recomputed(Block(parts=(Part(again_bytes=10.0, saved_bytes=0.0), Part(saved_bytes=2.0, saved_units=1.0))))
    7.0
    """
    beyond, gone = 0.0, 0.0
    for part in reversed(block.parts):
        beyond = max(beyond, part.again_bytes - gone)
        gone += (part.saved_bytes or 0.0) + part.saved_units
    return beyond


def in_one_piece(whole: Stack, me: Rank) -> tuple[Stack, tuple[Layer, ...]]:
    """(a strategy whose blocks are whole where they say what they keep, the layers that are left out of it)."""
    splitting = tuple(layer for layer in whole.layers if layer.cut(me, Cut()) != Cut())
    if not splitting or any(block.saved_bytes is None for block in me.model.blocks):
        return whole, ()
    return replace(whole, layers=tuple(layer for layer in whole.layers if layer not in splitting)), splitting
