"""What instructions read and write as a ledger sees it: what a block keeps for its backward pass is a value too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from .passes import Backward, BackwardPart, BackwardWeight, Forward, ForwardPart
from .program import AllGather, Instruction, ReduceScatter
from .rank import Rank
from .values import Act, ActGrad, Ahead, Buffers, Chunk, Grads, Inner, InnerGrad, Named, Params, Target, Value, whole


@dataclass(frozen=True)
class Inside(Value):
    """What a block keeps for its backward pass beside what entered it; or all that part ``at`` of it keeps."""

    block: int
    microbatch: int
    at: int | None = None


ACTIVATIONS = (Act, Inside, Inner, Target)
PASSING = (Act, ActGrad, Inside, Inner, InnerGrad)


class Entry(NamedTuple):
    """An instruction, and what of it matters to a ledger. Values have numbers, which are quicker to look up.

    ``kept``: what it writes that is kept by name, with its number; ``placed``: what it writes of parameters and
    gradients. ``mortal``: the numbers of what it touches that is there until it is last read; ``needed``: of what of
    that it reads, and ``made``: of what of that it writes without reading it. ``beside`` [B]: what its block needs
    while it runs.
    """

    instruction: Instruction
    text: str
    kept: tuple[tuple[int, Value], ...]
    placed: tuple[Value, ...]
    mortal: tuple[int, ...]
    needed: tuple[int, ...]
    made: tuple[int, ...]
    beside: float


class Keeping:
    """What the instructions of one rank need."""

    def __init__(self, me: Rank):
        self.me = me
        self.samples: dict[int, float] = {}
        self.numbers: dict[Value, int] = {}
        self.activations: list[bool] = []

    def number(self, value: Value) -> int:
        """The number of a value, new or known."""
        found = self.numbers.get(value)
        if found is None:
            found = self.numbers[value] = len(self.activations)
            self.activations.append(is_activation(value))
        return found

    def entry(self, instruction: Instruction, beside: float) -> Entry:
        """An instruction as the ledger sees it."""
        reads, writes = map(_named, self._reads(instruction)), tuple(map(_named, self._writes(instruction)))
        needed = tuple(dict.fromkeys([self.number(value) for value in reads if not _stays(value)]))
        mortal = [self.number(value) for value in writes if not _stays(value)]
        made = tuple([number for number in mortal if number not in needed])
        placed = tuple([value for value in writes if isinstance(whole(value), (Params, Grads))])
        named = [value for value in writes if value not in placed and not isinstance(value, Chunk)]  # the whole is kept
        kept = tuple([(self.number(value), value) for value in named])
        return Entry(instruction, str(instruction), kept, placed, needed + made, needed, made, beside)

    def size(self, value: Value, instruction: Instruction, kept: Mapping[int, float]) -> float:
        """The bytes of what an instruction writes under a name; ``kept``: by number, those of what is there already."""
        if isinstance(value, Inside):
            return self._samples(value.microbatch) * self._inside(value)
        if isinstance(instruction, (AllGather, ReduceScatter)) and instruction.into is not None:
            ranks, given = self.me.size(instruction.over), self._held(instruction.value, kept)
            return given * ranks if isinstance(instruction, AllGather) else given / ranks
        if isinstance(value, ActGrad) and value.block == 0:  # data need no gradient
            return 0.0
        return self._held(value, kept)

    def _samples(self, microbatch: int) -> float:
        if microbatch not in self.samples:
            self.samples[microbatch] = self.me.samples(microbatch)
        return self.samples[microbatch]

    def _inside(self, value: Inside) -> float:
        """Bytes per sample."""
        block = self.me.model.blocks[value.block]
        if value.at is not None:
            return block.parts[value.at].saved_bytes or 0.0
        return max(0.0, (block.saved_bytes or 0.0) - block.input_bytes)

    def _held(self, value: Value, kept: Mapping[int, float]) -> float:
        found = kept.get(self.number(value))
        if found is not None:
            return found
        if isinstance(value, (Act, ActGrad)) and value.block < len(self.me.model.blocks) and not self.me.sizes:
            return self._samples(value.microbatch) * self.me.model.blocks[value.block].input_bytes  # as in me.bytes
        return self.me.bytes(value)

    def _reads(self, instruction: Instruction) -> tuple[Value, ...]:
        """A backward pass also reads what its forward pass kept; its second half what the first left."""
        if isinstance(instruction, BackwardPart) and self._saves(instruction):
            kept = Inside(instruction.block, instruction.microbatch, instruction.at)
            return *(value for value in instruction.reads if not isinstance(value, (Act, Inner))), kept
        if not isinstance(instruction, (Backward, BackwardWeight)):
            return instruction.reads
        block, microbatch = instruction.block, instruction.microbatch
        kept = Inside(block, microbatch)
        if isinstance(instruction, Backward):
            return *instruction.reads, kept
        return Act(block, microbatch), ActGrad(block + 1, microbatch), kept

    def _writes(self, instruction: Instruction) -> tuple[Value, ...]:
        if isinstance(instruction, Forward) and self.me.model.blocks[instruction.block].saved_bytes is not None:
            return *instruction.writes, Inside(instruction.block, instruction.microbatch)
        if isinstance(instruction, ForwardPart) and self._saves(instruction):
            return *instruction.writes, Inside(instruction.block, instruction.microbatch, instruction.at)
        return instruction.writes

    def _saves(self, part: ForwardPart | BackwardPart) -> bool:
        """Whether the model says what a part keeps for its backward pass."""
        return self.me.model.blocks[part.block].parts[part.at].saved_bytes is not None


def _named(value: Value) -> Value:
    """The name under which something is kept: of a part of an activation, that of the whole."""
    return whole(value) if isinstance(value, Chunk) and isinstance(whole(value), PASSING) else value


def is_activation(value: Value) -> bool:
    """Whether it counts as an activation; what is kept by name is a buffer otherwise."""
    return isinstance(value, ACTIVATIONS) or (isinstance(value, Ahead) and is_activation(value.value))


def _stays(value: Value) -> bool:
    """Whether it is there until it is freed."""
    return not isinstance(value, PASSING) and isinstance(whole(value), (Named, Buffers, Params, Grads))
