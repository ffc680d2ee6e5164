"""Encoding and decoding as functions of tensors: what the Computes of a compressed exchange do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ..compression import DGC, ErrorFeedback
from .coding import HEADER, Coding

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Encode:
    """From a gradient and what is remembered to the payload and what is then remembered.

    With ``parts`` the gradient is first divided by so many ranks, whose payloads are added: so halves do not overflow.
    The payload then has the type in which they are added.
    """

    coding: Coding
    rank: int = field(compare=False)
    parts: int | None = None

    @property
    def __name__(self) -> str:
        return f"encode {type(self.coding.compressor).__name__}"

    def __call__(self, flat: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        """The payload, and as many memories as went in."""
        data, *left = self.payload(flat, *memory)
        if self.parts is not None:
            dtype = self.coding.compressor.payload_dtype(flat.dtype)
            assert dtype is not None, f"{self.coding.compressor} is linear: it has a payload_dtype"
            return data.view(dtype), *left
        if not self.coding.headed:
            return data, *left
        return _headed(data, data.numel() if self.coding.compressor.varying else self.coding.lot), *left

    def payload(self, flat: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        """The bytes, and the memories."""
        coding, parts = self.coding, self.parts or 1
        compressor, seed = coding.compressor, coding.seed(self.rank)
        if isinstance(compressor, DGC):
            velocity, residual = memory
            return compressor.feedback(flat, velocity, residual, coding.step)
        if isinstance(compressor, ErrorFeedback):
            data, left = compressor.feedback(flat / parts, memory[0] / parts, seed, coding.shapes)
            return data, left * parts
        return (compressor.encode_shaped(flat / parts, coding.shapes, seed),)


@dataclass(frozen=True)
class Decode:
    """From one payload to the numbers: what one rank has sent, or the sum of what all have."""

    coding: Coding

    @property
    def __name__(self) -> str:
        return f"decode {type(self.coding.compressor).__name__}"

    def __call__(self, like: Tensor, data: Tensor) -> Tensor:
        """``like`` says of which type the numbers are. A seed that does not travel is the lot, or of no use."""
        import torch

        data = data.view(torch.uint8)
        if self.coding.headed:
            return self.coding.decode(data[HEADER:], like.dtype, _number(data))
        return self.coding.decode(data, like.dtype, self.coding.lot)


@dataclass(frozen=True)
class DecodeAll:
    """From the payloads of several ranks to what they give together."""

    coding: Coding
    ranks: tuple[int, ...]
    combine: Callable[[Tensor], Tensor]

    @property
    def __name__(self) -> str:
        return f"decode {type(self.coding.compressor).__name__} of {len(self.ranks)}"

    def __call__(self, like: Tensor, payloads: Tensor) -> Tensor:
        """``like`` says of which type the numbers are."""
        import torch

        found = _apart(payloads) if self.coding.compressor.varying else payloads.view(len(self.ranks), -1)
        rows = [self.coding.decode(d, like.dtype, self.coding.seed(rank)) for rank, d in zip(self.ranks, found)]
        return self.combine(torch.stack(rows))


@dataclass(frozen=True)
class Room:
    """Where a payload will be stored: whoever receives it must know its size."""

    coding: Coding
    __name__: ClassVar[str] = "room for a payload"

    def __call__(self, like: Tensor) -> Tensor:
        """For numbers of the type of ``like``."""
        import torch

        return torch.zeros(self.coding.nbytes(like.itemsize), dtype=torch.uint8, device=like.device)


def end_to_end(rows: Tensor) -> Tensor:
    """All rows, one after another."""
    return rows.reshape(-1)


@dataclass(frozen=True)
class Zeros:
    """Memories before the first step."""

    count: int
    __name__: ClassVar[str] = "empty memory"

    def __call__(self, like: Tensor) -> tuple[Tensor, ...]:
        """As many vectors of zeros as there are memories."""
        return tuple(like.new_zeros(like.numel()) for _ in range(self.count))


def _headed(data: Tensor, number: int) -> Tensor:
    """A payload, and a number before it."""
    import torch

    return torch.cat([torch.tensor([number], device=data.device).view(torch.uint8), data])


def _number(data: Tensor) -> int:
    """The number before a payload."""
    import torch

    return int(data[:HEADER].clone().view(torch.int64).item())


def _apart(payloads: Tensor) -> list[Tensor]:
    """Payloads that say how long they are."""
    found, start = [], 0
    while start < payloads.numel():
        begin = start + HEADER
        start = begin + _number(payloads[start:begin])
        found.append(payloads[begin:start])
    return found
