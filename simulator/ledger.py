"""A ledger of one rank's memory: what each instruction of its program needs, and what nobody needs after it.

Nothing is run. Parameters are there from the beginning, gradients from a backward pass to their update, an optimizer's
memory from the first update on; an activation is there from when it is written to when it is last read, and a buffer
until it is freed. What a program starts on a stream counts at once, and so does what that frees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from .computing import gradients_of
from .intervals import Interval, Intervals
from .passes import Backward, BackwardPart, BackwardWeight, Forward, ForwardPart
from .precision import Precision
from .program import AllGather, Compute, Copy, Free, Instruction, ReduceScatter, Start, Until, Update
from .rank import Rank
from .values import (
    Act,
    ActGrad,
    Ahead,
    Buffers,
    Chunk,
    Grads,
    Inner,
    Named,
    Params,
    Replicated,
    Target,
    Tied,
    Value,
    bounds,
    whole,
)

Said = Sequence[tuple[int, Instruction]]
"""A program: instructions, each with its step."""
ACTIVATIONS = (Act, Inner, Target)


@dataclass(frozen=True)
class Footprint:
    """Bytes by kind. ``buffers``: a program's own, and gradients of activations on their way."""

    parameters: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    activations: float = 0.0
    buffers: float = 0.0

    @property
    def total(self) -> float:
        """All kinds together."""
        return self.parameters + self.gradients + self.optimizer + self.activations + self.buffers


class Moment(NamedTuple):
    """What is held while an instruction runs."""

    step: int
    instruction: str
    held: Footprint


@dataclass(frozen=True)
class Inside(Value):
    """What a block keeps for its backward pass beside what entered it; or all that part ``at`` of it keeps."""

    block: int
    microbatch: int
    at: int | None = None


class Ledger:
    """What one rank holds while it goes through its program. ``held``: the parameters that it begins with."""

    def __init__(self, me: Rank, held: tuple[Value, ...], precision: Precision):
        self.me, self.precision = me, precision
        blocks = sorted(me.blocks)
        self.starts = dict(zip(blocks, accumulate((me.model.blocks[block].parameters for block in blocks), initial=0)))
        self.params = Intervals(place for value in held for place in self._places(value) or ())
        self.grads, self.updated = Intervals(), Intervals()
        self.kept: dict[Value, float] = {}
        self.sums = {True: 0.0, False: 0.0}  # of activations, and of buffers
        for block in blocks:
            self._keep(Buffers(block), me.bytes(Buffers(block)))

    def walk(self, program: Said) -> list[Moment]:
        """What is held during each instruction, those of streams where they are started."""
        said = [(step, one) for step, what in program for one in _flat(what)]
        found = []
        for (step, one), dead in zip(said, self._dead([one for _, one in said])):
            self._need(one)
            found.append(Moment(step, str(one), self.now))
            self._let_go(one, dead)
        return found

    @property
    def now(self) -> Footprint:
        """What is held at this moment."""
        width = self.precision
        own = (self.me.rule.state if self.me.rule is not None else 0) * width.state + width.master
        return Footprint(
            self.params.size * width.parameters,
            self.grads.size * width.gradients,
            self.updated.size * own,
            self.sums[True],
            self.sums[False],
        )

    def _keep(self, value: Value, size: float) -> None:
        self.sums[_is_activation(value)] += size - self.kept.get(value, 0.0)
        self.kept[value] = size

    def _drop(self, value: Value) -> None:
        self.sums[_is_activation(value)] -= self.kept.pop(value, 0.0)

    # ------------------------------------------------------------ what an instruction needs

    def _need(self, instruction: Instruction) -> None:
        if isinstance(instruction, Free):
            return
        if isinstance(instruction, (Copy, Compute)):
            self.me.store(instruction)
        for value in self._writes(instruction):
            places = self._places(value)
            if places is None and not isinstance(value, Chunk):  # of what is kept by name, the whole is kept
                self._keep(value, self._size(value, instruction))
            elif places is None:
                continue
            else:
                (self.params if isinstance(whole(value), Params) else self.grads).add(places)
        if isinstance(instruction, Update):
            self.updated.add(self._places(instruction.params) or [])

    def _size(self, value: Value, instruction: Instruction) -> float:
        """The bytes of what an instruction writes under a name."""
        if isinstance(value, Inside):
            block = self.me.model.blocks[value.block]
            if value.at is not None:
                return self.me.samples(value.microbatch) * (block.parts[value.at].saved_bytes or 0.0)
            return self.me.samples(value.microbatch) * max(0.0, (block.saved_bytes or 0.0) - block.input_bytes)
        if isinstance(instruction, (AllGather, ReduceScatter)) and instruction.into is not None:
            ranks, given = self.me.size(instruction.over), self._held(instruction.value)
            return given * ranks if isinstance(instruction, AllGather) else given / ranks
        if isinstance(value, ActGrad) and value.block == 0:  # data need no gradient
            return 0.0
        return self._held(value)

    def _held(self, value: Value) -> float:
        return self.kept[value] if value in self.kept else self.me.bytes(value)

    def _places(self, value: Value) -> list[Interval] | None:
        """Where the parameters or gradients lie that a value names; None for what is kept by name."""
        if isinstance(value, Chunk):
            places = self._places(value.value)
            return None if places is None else _part(places, *bounds(_length(places), value.index, value.of))
        if isinstance(value, Replicated):
            return _part(self._places(value.value) or [], *self.me.replicated(value))
        if isinstance(value, Tied):
            own = value.block in self.starts
            return _part(self._places(value.value) or [], value.first, value.last) if own else None
        if not isinstance(value, (Params, Grads)):
            return None
        here = [block for block in value.blocks if block in self.starts]
        return [(self.starts[b], self.starts[b] + self.me.model.blocks[b].parameters) for b in here]

    # ------------------------------------------------------------ what nobody needs any more

    def _let_go(self, instruction: Instruction, dead: set[Value]) -> None:
        for value in dead:
            self._drop(value)
        if isinstance(instruction, Update):
            self.grads.remove(self._places(gradients_of(instruction.params)) or [])
        if isinstance(instruction, Free):
            self._free(instruction)

    def _free(self, free: Free) -> None:
        places = self._places(free.value)
        if places is None:
            self._drop(free.value)
            return
        region = self.params if isinstance(whole(free.value), Params) else self.grads
        region.remove(places)
        if free.keep is not None:
            region.add(self._places(free.keep) or [])

    def _dead(self, program: list[Instruction]) -> list[set[Value]]:
        """For each instruction the activations, and their gradients, that none after it reads."""
        wanted, found = set[Value](), list[set[Value]]()
        for instruction in reversed(program):
            reads, writes = self._reads(instruction), self._writes(instruction)
            found.append({value for value in {*reads, *writes} if not _stays(value) and value not in wanted})
            wanted -= {*writes} - {*reads}
            wanted |= {*reads}
        return found[::-1]

    def _reads(self, instruction: Instruction) -> tuple[Value, ...]:
        """A backward pass also reads what its forward pass kept; its second half what the first left."""
        if isinstance(instruction, BackwardPart) and self._saves(instruction):
            kept = Inside(instruction.block, instruction.microbatch, instruction.at)
            return *(value for value in instruction.reads if not isinstance(value, (Act, Inner))), kept
        if not isinstance(instruction, (Backward, BackwardWeight)):
            return instruction.reads
        block, microbatch = instruction.block, instruction.microbatch
        left = Act(block, microbatch), ActGrad(block + 1, microbatch), Inside(block, microbatch)
        return *instruction.reads, *left

    def _writes(self, instruction: Instruction) -> tuple[Value, ...]:
        if isinstance(instruction, Forward) and self.me.model.blocks[instruction.block].saved_bytes is not None:
            return *instruction.writes, Inside(instruction.block, instruction.microbatch)
        if isinstance(instruction, ForwardPart) and self._saves(instruction):
            return *instruction.writes, Inside(instruction.block, instruction.microbatch, instruction.at)
        return instruction.writes

    def _saves(self, part: ForwardPart | BackwardPart) -> bool:
        """Whether the model says what a part keeps for its backward pass."""
        return self.me.model.blocks[part.block].parts[part.at].saved_bytes is not None


def _flat(instruction: Instruction) -> Iterator[Instruction]:
    """An instruction, or those inside of it."""
    if isinstance(instruction, (Start, Until)):
        for inner in instruction.what:
            yield from _flat(inner)
        if isinstance(instruction, Until):
            yield instruction.recv
    else:
        yield instruction


def _is_activation(value: Value) -> bool:
    return isinstance(value, (*ACTIVATIONS, Inside)) or (isinstance(value, Ahead) and _is_activation(value.value))


def _stays(value: Value) -> bool:
    """Whether it is there until it is freed."""
    return isinstance(whole(value), (Named, Buffers, Params, Grads))


def _length(places: list[Interval]) -> int:
    return sum(last - first for first, last in places)


def _part(places: list[Interval], start: int, end: int) -> list[Interval]:
    """Elements ``start`` to ``end`` of those that lie in some places, end to end."""
    found, passed = list[Interval](), 0
    for first, last in places:
        a, b = max(first, first + start - passed), min(last, first + end - passed)
        if a < b:
            found.append((a, b))
        passed += last - first
    return found
