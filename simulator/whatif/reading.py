"""What blocks cost one of the ranks that share them: read from the text that a strategy puts in place of passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..clusters.device import Device
from ..communicating import AllGather, Collective, ReduceScatter
from ..costs import of_pass
from ..model import Block, Model
from ..passes import Backward, BackwardPart, Forward, ForwardPart
from ..program import Instruction
from ..rank import Rank
from ..rewriting import Table, same, through
from ..stack import stack
from ..strategies import MixedPrecision, Single, TensorParallel
from ..values import Replicated
from ..working import recomputed


@dataclass(frozen=True)
class Pass:
    """One direction of a block. ``text``: its computations; ``moves``: (collective, bytes per sample)."""

    block: Block
    text: tuple[Instruction, ...]
    moves: tuple[tuple[type[Collective], float], ...]

    def seconds(self, samples: float, devices: Sequence[Device]) -> float:
        """Of computation, on the slowest of some devices, as a simulation counts it."""
        return max(sum(of_pass(one, self.block, samples, device) for one in self.text) for device in devices)


@dataclass(frozen=True)
class Read:
    """One block, as a rank has it.

    ``entering`` and ``saved``: bytes per sample that enter it, and that it keeps for its backward pass; ``again``: what
    it keeps only while it runs again.
    """

    forward: Pass
    backward: Pass
    parameters: int
    entering: float
    saved: float
    again: float


@dataclass(frozen=True)
class Reading:
    """A model, as a rank sees it that shares its blocks: its different blocks, and which of them comes where."""

    model: Model
    kinds: tuple[Read, ...]
    order: tuple[int, ...]


def read(model: Model, ways: int, sequence: bool, dtype: str | None) -> Reading:
    """What ``ways`` ranks make of a model's blocks; ``dtype``: of mixed precision, None without.

    Blocks that are one object are read once. Raises ValueError where blocks cannot be shared.
    """
    mixed = () if dtype is None else (MixedPrecision(dtype),)
    tensor = TensorParallel(sequence, ways=ways)
    layers = (tensor, *mixed) if ways > 1 else mixed
    me = Rank(stack(Single(), *layers), 0, ways, model.with_batch(1), steps=1)
    table = Table(tensor, me) if ways > 1 else None
    places = [(id(block), at == 0, at == len(model.blocks) - 1) for at, block in enumerate(model.blocks)]
    kinds = list(dict.fromkeys(places))
    found = tuple(_block(me, table, places.index(kind)) for kind in kinds)
    return Reading(me.model, found, tuple(map(kinds.index, places)))


def _block(me: Rank, table: Table | None, number: int) -> Read:
    block = me.model.blocks[number]
    kept = block.input_bytes if block.saved_bytes is None else block.saved_bytes
    parts = sum((part.saved_bytes or 0.0) + part.saved_units for part in block.parts)
    return Read(
        _pass(me, table, Forward(number, 0)),
        _pass(me, table, Backward(number, 0)),
        block.parameters,
        block.input_bytes,
        max(kept, block.input_bytes),
        parts if block.recomputes and table is not None else recomputed(block),
    )


def _pass(me: Rank, table: Table | None, instruction: Forward | Backward) -> Pass:
    text = [instruction] if table is None else list(through(table, same(instruction)))
    computed = tuple(one for one in text if isinstance(one, (Forward, Backward, ForwardPart, BackwardPart)))
    moves = tuple((type(one), _bytes(me, one)) for one in text if isinstance(one, Collective))
    return Pass(me.model.blocks[instruction.block], computed, moves)


def _bytes(me: Rank, collective: Collective) -> float:
    """Of the whole value, for one sample. Gradients, which do not grow with the samples, count as nothing."""
    if isinstance(collective.value, Replicated):
        return 0.0
    gathers = isinstance(collective, (AllGather, ReduceScatter)) and collective.into is not None
    return me.bytes(collective.value) * (me.size(collective.over) if gathers else 1)
