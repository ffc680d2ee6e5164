"""What a rank knows about itself: the ``me`` of a program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .computing import Compute, Copy
from .cutting import local, replicated
from .model import Model
from .precision import master_width, reduced
from .values import (
    Act,
    ActGrad,
    Ahead,
    Buffers,
    Chunk,
    Grads,
    Inner,
    InnerGrad,
    Named,
    Params,
    Replicated,
    Tied,
    Value,
    bounds,
    whole,
)

if TYPE_CHECKING:

    from .rules import Rule
    from .stack import Stack


class Rank:
    """One rank of a run. A program asks it; the machines move its ``step`` on.

    - ``rank``, ``ranks``: who am I, of how many.
    - ``blocks``: the blocks of the model that this rank computes.
    - ``microbatches``: into how many parts a rank's share of the batch is cut.
    - ``model``: what this rank holds and does of ``whole_model``: all of it, unless ranks share blocks (``cut``).
    - ``share``: (worker, workers), the slice of every global batch that is this rank's; None for servers.
    - ``slice``: the first of its samples in a global batch, and one past the last.
    - ``step``: the step it is in; ``versions``: of the parameters it last received, by value.
    - ``made``: how many steps it has ended; ``begun``: whether it goes through them.
    - ``memory``: a dict for what the program must remember from step to step, apart from named values.
    - ``rule``: how updates are applied (None when the run only times and the strategy names no rule).
    """

    def __init__(self, stack: Stack, rank: int, ranks: int, model: Model, steps: int, rule: Rule | None = None):
        self.rank, self.ranks, self.whole_model, self.total, self.rule = rank, ranks, model, steps, rule
        self.grid, self._strides = stack.laid_out(ranks)
        self.step = self.made = 0
        self.begun = False
        self.versions: dict[Value, int] = {}
        self.memory: dict[str, Any] = {}
        self.sizes: dict[Value, float] = {}
        self._groups: dict[str, tuple[int, ...]] = {}
        self.cut = stack.cut(self)
        self.reduced = stack.reduced
        if self.reduced is not None:
            model, self.rule = reduced(model, self.reduced.dtype), self.reduced.rule(rule)
        self.model = local(model, self.cut)
        self.microbatches = stack.order.pieces
        self.local = stack.local
        self.share = stack.share(self)
        self.slice = stack.slice(self) or bounds(model.batch, *(self.share or (0, 1)))
        self.blocks = stack.order.blocks(self)

    def beside(self, rank: int, share: tuple[int, int] | None, slice: tuple[int, int]) -> Rank:
        """Another rank at its beginning, to which a strategy gives all the same but its share of the batch."""
        other, mine = object.__new__(Rank), dict(rank=rank, share=share, slice=slice)
        vars(other).update(vars(self), versions={}, memory={}, sizes={}, _groups={}, **mine)
        return other

    def at(self, axis: str) -> int:
        """My position along an axis of the rank grid. The first axis varies slowest, as in row-major order."""
        return self.position(self.rank, axis)

    def size(self, axis: str) -> int:
        """The number of ranks along an axis."""
        if axis == "world":
            return self.ranks
        self._stride(axis)  # refuses what is no axis
        return self.grid[axis]

    def first(self, axis: str) -> bool:
        """Whether I am the first along an axis."""
        return self.at(axis) == 0

    def last(self, axis: str) -> bool:
        """Whether I am the last along an axis."""
        return self.at(axis) == self.size(axis) - 1

    def peer(self, axis: str, position: int) -> int:
        """The rank that stands at ``position`` of an axis, and elsewhere where I do."""
        if not 0 <= position < self.size(axis):
            raise ValueError(f"axis {axis!r} has positions 0 to {self.size(axis) - 1}; got {position}")
        if axis == "world":
            return position
        return self.rank + (position - self.at(axis)) * self._stride(axis)

    def position(self, rank: int, axis: str) -> int:
        """Where another rank stands along an axis."""
        return rank if axis == "world" else rank // self._stride(axis) % self.grid[axis]

    def divided(self, share: tuple[int, int] | None, axis: str) -> tuple[int, int] | None:
        """My part of a share of the batch, (worker, workers), that ranks along an axis take between them."""
        if share is None:
            return None
        index, count = share
        return index * self.size(axis) + self.at(axis), count * self.size(axis)

    def chunk(self, value: Value, axis: str) -> Chunk:
        """My part of a value that ranks along an axis share evenly."""
        return Chunk(value, self.at(axis), self.size(axis))

    def group(self, axis: str) -> tuple[int, ...]:
        """All ranks along an axis that differ from me in nothing else."""
        if axis not in self._groups:
            self._groups[axis] = tuple(self.peer(axis, position) for position in range(self.size(axis)))
        return self._groups[axis]

    def _stride(self, axis: str) -> int:
        if axis not in self.grid:
            raise ValueError(f"the rank grid has the axes {', '.join([*self.grid, 'world'])}; got {axis!r}")
        return self._strides[axis]

    @property
    def taken(self) -> int:
        """How many samples of a global batch are mine."""
        return self.slice[1] - self.slice[0]

    @property
    def version(self) -> int:
        """How many updates are in the parameters that I compute with (in their first part, where several send)."""
        return next(iter(self.versions.values()), 0)

    def steps(self, count: int | None = None) -> Iterator[int]:
        """The steps of the run, one after another; ``count`` where this rank makes another number of them."""
        self.begun = True
        for self.step in range(self.total if count is None else count):
            yield self.step
            self.made += 1

    @property
    def missing_steps(self) -> str:
        """What is wrong when a worker's program has ended before all its steps; empty when nothing is."""
        if self.share is None or self.made >= self.total or self.total == 1:
            return ""
        return f"a program goes through me.steps(); that of rank {self.rank} made {self.made} of {self.total}"

    def stalled(self, made: int | None) -> str:
        """What is wrong when a worker's program goes on for long; ``made``: how many steps it had ended long ago."""
        if self.share is None:
            return ""
        if not self.begun:
            return f"a program goes through me.steps(), as in: for step in me.steps(); that of rank {self.rank} did not"
        return "" if made is None or self.made > made else f"rank {self.rank} does not come to the end of step {made}"

    # ------------------------------------------------------------ sizes

    def samples(self, microbatch: int) -> float:
        """How many samples of the global batch are in one of my microbatches."""
        count, parts = (self.share or (0, 1))[1], self.microbatches
        if self.model.batch < count * parts:
            return self.model.batch / (count * parts)
        start, end = self.slice
        first, last = bounds(end - start, microbatch % parts, parts)
        return last - first

    def weight(self, microbatch: int) -> float:
        """What the mean loss of a microbatch counts, so that the mean over workers is that of the global batch.

        Where workers learn for themselves, so that the sum over microbatches is the mean over the worker's own slice.
        """
        start, end = self.slice
        if self.local:
            return self.samples(microbatch) / (end - start) * self.cut.weight
        workers = (self.share or (0, 1))[1]
        return self.samples(microbatch) * workers / self.model.batch * self.cut.weight

    def elements(self, value: Value) -> int:
        """How many numbers parameters or gradients have, or a chunk of them."""
        if isinstance(value, Chunk):
            start, end = bounds(self.elements(value.value), value.index, value.of)
            return end - start
        if isinstance(value, Tied):
            return value.last - value.first
        if isinstance(value, (Params, Grads)):
            return sum(self.model.blocks[block].parameters for block in value.blocks)
        if isinstance(value, Replicated):
            first, last = self.replicated(value)
            return last - first
        raise ValueError(f"only parameters and gradients have a number of elements here; got {value}")

    def replicated(self, value: Replicated) -> tuple[int, int]:
        """Where in a block's parameters those begin and end that all ranks along an axis hold."""
        if len(value.value.blocks) != 1:
            raise ValueError(f"what is replicated is said of one block; got {value}")
        return replicated(self.whole_model.blocks[value.value.blocks[0]], self.cut, value.over)

    def width(self, value: Value) -> int:
        """The bytes of one number of parameters or gradients."""
        accumulated = self.reduced is not None and self.reduced.accumulate and isinstance(whole(value), Grads)
        return master_width(self.whole_model) if accumulated else self.model.parameter_bytes

    def imbalance(self, value: Value) -> float:
        """How much more tokens the busiest rank gets than the mean one, of a value that an AllToAll sends.

        Raises ValueError where the model does not say.
        """
        parts = self.model.blocks[value.block].parts if isinstance(value, (Inner, InnerGrad)) else ()
        for part in parts:
            if part.routing is not None:
                return part.routing
        raise ValueError(
            f"how many tokens go to which expert is known only when it is computed; got {value} on ranks that only"
            " time: give the Part that routes a routing, such as 1.0 for even loads, or learn a Problem"
        )

    def store(self, instruction: Copy | Compute) -> None:
        """Remember how large buffers are that an instruction has written, where there are no tensors to ask."""
        if isinstance(instruction, Compute):
            self.sizes |= dict(zip(instruction.writes, instruction.sizes))
            for value in instruction.writes:
                if isinstance(value, Named) and value not in self.sizes and instruction.reads:
                    self.sizes[value] = self.bytes(instruction.reads[0])
        else:
            self.sizes[instruction.target] = self.bytes(instruction.source)

    def bytes(self, value: Value) -> float:
        """The size of a value in bytes; that of a named buffer is what was last stored in it."""
        if isinstance(value, Chunk) and not isinstance(whole(value), (Params, Grads)):
            return self._part(value)
        if isinstance(value, (Params, Grads, Chunk, Replicated, Tied)):
            return self.elements(value) * self.width(value)
        if isinstance(value, Buffers):
            return self.model.blocks[value.block].buffers * self.model.parameter_bytes
        if isinstance(value, Ahead):
            return self.bytes(value.value)
        if value in self.sizes:
            return self.sizes[value]
        if isinstance(value, (Inner, InnerGrad)):
            return self.samples(value.microbatch) * self.model.blocks[value.block].parts[value.at - 1].output_bytes
        if isinstance(value, (Act, ActGrad)) and value.block < len(self.model.blocks):
            return self.samples(value.microbatch) * self.model.blocks[value.block].input_bytes
        last = self.model.blocks[-1].parts[-1:]  # what leaves the last block is known where that has parts
        if isinstance(value, (Act, ActGrad)) and value.block == len(self.model.blocks) and last:
            return self.samples(value.microbatch) * last[0].output_bytes
        return 0.0

    def _part(self, chunk: Chunk) -> float:
        """The bytes of a chunk of activations or of a buffer; the numbers of a buffer count as wide as parameters."""
        size, width = self.bytes(chunk.value), self.model.parameter_bytes
        if not isinstance(whole(chunk), Named) or size % width:
            return size / chunk.of  # how many numbers it has nobody knows
        start, end = bounds(int(size) // width, chunk.index, chunk.of)
        return float((end - start) * width)
