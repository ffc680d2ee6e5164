"""A ledger of one rank's memory: what each instruction of its program needs, and what nobody needs after it.

Nothing is run. Parameters are there from the beginning, gradients from a backward pass to their update, an optimizer's
memory from the first update on; an activation is there from when it is written to when it is last read, and a buffer
until it is freed. What a program starts on a stream counts at once, and so does what that frees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from .computing import gradients_of
from .footprint import Footprint, Moment
from .intervals import Interval, Intervals
from .keeping import Entry, Keeping
from .precision import Precision
from .program import Compute, Copy, Free, Instruction, Start, Until, Update
from .rank import Rank
from .values import Buffers, Chunk, Grads, Params, Replicated, Tied, Value, bounds, whole
from .working import Again, Working

Said = Sequence[tuple[int, Instruction]]
"""A program: instructions, each with its step."""


class Ledger:
    """What one rank holds while it goes through its program.

    ``held``: the parameters that it begins with. ``working``: what blocks need beside, while they run.
    """

    def __init__(self, me: Rank, held: tuple[Value, ...], precision: Precision, working: Working | Again | None = None):
        self.me, self.precision, self.working, self.keeping = me, precision, working, Keeping(me)
        blocks = sorted(me.blocks)
        self.starts = dict(zip(blocks, accumulate((me.model.blocks[block].parameters for block in blocks), initial=0)))
        self.params = Intervals(place for value in held for place in self._places(value) or ())
        self.grads, self.updated = Intervals(), Intervals()
        self.entries: dict[Instruction, tuple[Entry, ...]] = {}
        self.kept: dict[int, float] = {}
        self.sums = {True: 0.0, False: 0.0}  # of activations, and of buffers
        self.last: tuple[tuple[float, ...], Footprint] = (), Footprint()
        self.own = (me.rule.state if me.rule is not None else 0) * precision.state + precision.master
        for block in blocks:
            self._keep(self.keeping.number(Buffers(block)), me.bytes(Buffers(block)))

    def walk(self, program: Said) -> list[Moment]:
        """What is held during each instruction, those of streams where they are started."""
        said = [(step, entry) for step, what in program for entry in self._entries(what)]
        found = list[Moment]()
        for (step, entry), dead in zip(said, _dead([entry for _, entry in said])):
            self._need(entry)
            found.append(Moment(step, entry.text, self._now(entry.beside)))
            for number in dead:
                self._drop(number)
            self._let_go(entry.instruction)
        return found

    def _entries(self, instruction: Instruction) -> tuple[Entry, ...]:
        """Of an instruction, or of those inside of it."""
        found = self.entries.get(instruction)
        if found is None:
            flat = [(one, self.working.of(one) if self.working else 0.0) for one in _flat(instruction)]
            found = self.entries[instruction] = tuple([self.keeping.entry(one, beside) for one, beside in flat])
        return found

    def _now(self, beside: float) -> Footprint:
        """What is held at this moment; one object as long as that does not change."""
        width = self.precision
        numbers = self.params.size * width.parameters, self.grads.size * width.gradients, self.updated.size * self.own
        now = *numbers, self.sums[True], self.sums[False] + beside
        if now != self.last[0]:
            self.last = now, Footprint(*now)
        return self.last[1]

    def _keep(self, number: int, size: float) -> None:
        self.sums[self.keeping.activations[number]] += size - self.kept.get(number, 0.0)
        self.kept[number] = size

    def _drop(self, number: int) -> None:
        if number in self.kept:
            self.sums[self.keeping.activations[number]] -= self.kept.pop(number)

    # ------------------------------------------------------------ what an instruction needs

    def _need(self, entry: Entry) -> None:
        instruction = entry.instruction
        if isinstance(instruction, Free):
            return
        if isinstance(instruction, (Copy, Compute)):
            self.me.store(instruction)
        for number, value in entry.kept:
            self._keep(number, self.keeping.size(value, instruction, self.kept))
        for value in entry.placed:
            places = self._places(value)
            if places is not None:
                (self.params if isinstance(whole(value), Params) else self.grads).add(places)
            elif not isinstance(value, Chunk):  # tied to a block of another rank
                self._keep(self.keeping.number(value), self.keeping.size(value, instruction, self.kept))
        if isinstance(instruction, Update):
            self.updated.add(self._places(instruction.params) or [])

    def _places(self, value: Value) -> list[Interval] | None:
        """Where the parameters or gradients lie that a value names; None for what is kept by name."""
        if isinstance(value, (Params, Grads)):
            here = [block for block in value.blocks if block in self.starts]
            return [(self.starts[b], self.starts[b] + self.me.model.blocks[b].parameters) for b in here]
        if isinstance(value, Chunk):
            places = self._places(value.value)
            return None if places is None else _part(places, *bounds(_length(places), value.index, value.of))
        if isinstance(value, Replicated):
            return _part(self._places(value.value) or [], *self.me.replicated(value))
        if isinstance(value, Tied):
            own = value.block in self.starts
            return _part(self._places(value.value) or [], value.first, value.last) if own else None
        return None

    # ------------------------------------------------------------ what nobody needs any more

    def _let_go(self, instruction: Instruction) -> None:
        if isinstance(instruction, Update):
            self.grads.remove(self._places(gradients_of(instruction.params)) or [])
        if isinstance(instruction, Free):
            self._free(instruction)

    def _free(self, free: Free) -> None:
        places = self._places(free.value)
        if places is None:
            self._drop(self.keeping.number(free.value))
            return
        region = self.params if isinstance(whole(free.value), Params) else self.grads
        region.remove(places)
        if free.keep is not None:
            region.add(self._places(free.keep) or [])


def _dead(program: list[Entry]) -> list[list[int]]:
    """For each instruction the activations, and their gradients, that none after it reads."""
    wanted, found = set[int](), list[list[int]]()
    for entry in reversed(program):
        found.append([number for number in entry.mortal if number not in wanted])
        wanted.difference_update(entry.made)
        wanted.update(entry.needed)
    return found[::-1]


def _flat(instruction: Instruction) -> Iterator[Instruction]:
    """An instruction, or those inside of it."""
    if isinstance(instruction, (Start, Until)):
        for inner in instruction.what:
            yield from _flat(inner)
        if isinstance(instruction, Until):
            yield instruction.recv
    else:
        yield instruction


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
