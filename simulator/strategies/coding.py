"""How one value is encoded in one step: a compressor, shapes, what chance begins with, and what is remembered."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING
from zlib import crc32

from ..compression import DGC, Compressor, ErrorFeedback
from ..compression.base import Shapes
from ..problems.draws import mix
from ..rank import Rank
from ..rules.scaled import adaptive
from ..values import Grads, Named, Value

if TYPE_CHECKING:
    import torch
    from torch import Tensor

HEADER = 8
"""Bytes of a number before a payload."""


@dataclass(frozen=True)
class Coding:
    """A compressor, as it is applied to one value in one step.

    ``lot`` is what chance begins with: the same for all ranks. Codings that differ in step and lot say the same.
    ``mailed``: the receiver knows neither, so the seed travels too where both ends must draw the same.
    """

    compressor: Compressor
    shapes: Shapes
    lot: int = field(compare=False)
    step: int = field(compare=False)
    mailed: bool = False

    @classmethod
    def of(cls, compressor: Compressor, me: Rank, value: Value, seed: int, mailed: bool = False) -> Coding:
        """That of a value in the step in which a rank is."""
        lot = mix(seed, me.step, crc32(str(value).encode()))
        return cls(compressor, shapes_of(me, value), lot, me.step, mailed)

    @property
    def codec(self) -> Compressor:
        """What encodes and decodes in this step."""
        return self.compressor.at(self.step) if isinstance(self.compressor, DGC) else self.compressor

    @property
    def headed(self) -> bool:
        """Whether a number stands before the payload: its length, or the seed that it was made with."""
        return self.compressor.varying or (self.mailed and self.compressor.shared_seed)

    def seed(self, rank: int) -> int:
        """What a rank draws from."""
        return self.lot if self.compressor.shared_seed else mix(self.lot, rank)

    def nbytes(self, width: int) -> int:
        """Bytes of the payload, for numbers of ``width`` bytes."""
        return self.codec.nbytes_shaped(self.shapes, width) + (HEADER if self.headed else 0)

    def decode(self, data: Tensor, dtype: torch.dtype, seed: int) -> Tensor:
        """The numbers of a payload."""
        return self.codec.decode_shaped(data, self.shapes, dtype, seed)


def memories_of(compressor: Compressor, value: Value) -> tuple[Named, ...]:
    """What a compressor remembers of a value from step to step."""
    if isinstance(compressor, DGC):
        return Named(f"velocity of {value}"), Named(f"residual of {value}")
    return (Named(f"error of {value}"),) if isinstance(compressor, ErrorFeedback) else ()



def require_one_scale(me: Rank, compressor: Compressor | None) -> None:
    """Raise ValueError where what is left out of one step would join gradients of a loss with another scale."""
    if isinstance(compressor, (DGC, ErrorFeedback)) and adaptive(me.rule):
        raise ValueError(
            f"{compressor} remembers gradients from step to step, and their scale would change meanwhile; got"
            f" rule={me.rule}: give Scaled a FixedScale, or take a compressor without a memory"
        )


def shapes_of(me: Rank, value: Value) -> Shapes:
    """The shapes of the tensors that lie end to end in a value; one vector where they are not known."""
    if not isinstance(value, Grads):
        return ((me.elements(value),),)
    blocks = [me.model.blocks[block] for block in value.blocks]
    known = [block.shapes if sum(map(prod, block.shapes)) == block.parameters else () for block in blocks]
    vectors = [((block.parameters,),) if block.parameters else () for block in blocks]
    return tuple(shape for shapes, vector in zip(known, vectors) for shape in shapes or vector)
