"""The exchange of PowerSGD: two all-reduces of factors, which are linear while the other factor is common to all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ..compression import Compressor, ErrorFeedback, PowerSGD
from ..compression.base import Shapes
from ..program import AllReduce, Compute, Instruction
from ..values import Named, Value

if TYPE_CHECKING:
    from torch import Tensor


def power_sgd_of(compressor: Compressor) -> PowerSGD | None:
    """The PowerSGD that a compressor is, or feeds its error back to."""
    inner = compressor.compressor if isinstance(compressor, ErrorFeedback) else compressor
    return inner if isinstance(inner, PowerSGD) else None


@dataclass(frozen=True)
class Factors:
    """The program of one value: its factors p and q, and its memory if it has one (Vogels et al. 2019).

    ``p = M q``, averaged; orthonormal columns; ``q = Mᵀ p``, averaged; ``p qᵀ``. M is the gradient and what was left
    out before. ``q`` is kept: it warms the next step up.
    """

    power: PowerSGD
    shapes: Shapes
    value: Value
    memory: tuple[Named, ...]
    over: str
    width: int
    encode: float = 0.0
    decode: float = 0.0

    @property
    def p(self) -> Named:
        """The first factors, and what is sent as it is."""
        return Named(f"first factors of {self.value}")

    @property
    def q(self) -> Named:
        """The second factors."""
        return Named(f"second factors of {self.value}")

    def begin(self, lot: int) -> Iterator[Instruction]:
        """The second factors before the first step; all ranks draw them from one lot."""
        size = float(self.power.sizes(self.shapes)[1] * self.width)
        yield Compute(Begin(self.power, self.shapes, lot), (self.value,), (self.q,), sizes=(size,))

    def exchange(self) -> Iterator[Instruction]:
        """After which the value is the compressed mean."""
        left, right = (float(count * self.width) for count in self.power.sizes(self.shapes))
        reads = (self.value, *self.memory)
        first, second = First(self.power, self.shapes), Second(self.power, self.shapes)
        yield Compute(first, (self.q, *reads), (self.p,), seconds=self.encode, sizes=(left,))
        yield AllReduce(self.p, over=self.over)
        yield Compute(second, (self.p, *reads), (self.p, self.q, *self.memory), sizes=(left, right))
        if right:
            yield AllReduce(self.q, over=self.over)
        rebuild = Rebuild(self.power, self.shapes)
        yield Compute(rebuild, (self.p, self.q), (self.value,), seconds=self.decode)


@dataclass(frozen=True)
class Begin:
    """The second factors before the first step."""

    power: PowerSGD
    shapes: Shapes
    lot: int = field(compare=False)
    __name__: ClassVar[str] = "second factors at random"

    def __call__(self, like: Tensor) -> Tensor:
        """Of the type of a gradient."""
        return self.power.begin(self.shapes, like.dtype, self.lot).to(like.device)


@dataclass(frozen=True)
class First:
    """``p = M q``."""

    power: PowerSGD
    shapes: Shapes
    __name__: ClassVar[str] = "first factors"

    def __call__(self, q: Tensor, flat: Tensor, *memory: Tensor) -> Tensor:
        """The first factors of a gradient and what is remembered."""
        return self.power.first(sum(memory, flat), q, self.shapes)


@dataclass(frozen=True)
class Second:
    """Orthonormal columns for p, then ``q = Mᵀ p``; what ``p qᵀ`` leaves out of M is remembered."""

    power: PowerSGD
    shapes: Shapes
    __name__: ClassVar[str] = "second factors"

    def __call__(self, p: Tensor, flat: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        """p, q, and the memory if there is one."""
        wanted = sum(memory, flat)
        p = self.power.orthogonal(p, self.shapes)
        q = self.power.second(wanted, p, self.shapes)
        if not memory:
            return p, q
        return p, q, (wanted - self.power.rebuild(p, q, self.shapes)) * self._matrices(wanted)

    def _matrices(self, like: Tensor) -> Tensor:
        """1 for the numbers of matrices, 0 for those that are sent as they are: nothing is left out of these."""
        import torch

        parts = self.power.parts(self.shapes)
        marks = [like.new_full((part.rows * part.columns,), float(part.rank > 0)) for part in parts]
        return torch.cat([like.new_empty(0), *marks])


@dataclass(frozen=True)
class Rebuild:
    """``p qᵀ``."""

    power: PowerSGD
    shapes: Shapes
    __name__: ClassVar[str] = "product of factors"

    def __call__(self, p: Tensor, q: Tensor) -> Tensor:
        """The flat gradient that the factors stand for."""
        return self.power.rebuild(p, q, self.shapes)
