"""What every compressor can do, and what it gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from .. import checks
from .vectors import flattened, restored

if TYPE_CHECKING:
    import torch

Shapes = tuple[tuple[int, ...], ...]
"""Shapes of the tensors that lie end to end in a flat vector."""


@dataclass(frozen=True, eq=False)
class Payload:
    """A compressed vector: the bytes that travel, and what both ends know anyway.

    ``data``: 1-d uint8 tensor, all that is sent. ``shape``, ``dtype`` and ``kind`` (torch, numpy or list) are those of
    the vector; ``seed`` is what both ends draw from.
    """

    data: torch.Tensor
    shape: tuple[int, ...]
    dtype: torch.dtype
    kind: str = "torch"
    seed: int = 0

    @property
    def nbytes(self) -> int:
        """The bytes that travel."""
        return self.data.numel()


@dataclass(frozen=True)
class Compressor(ABC):
    """How a vector is made smaller before it travels. Abstract: use ``TopK``, ``Sign``, … or wrap one.

    ``C`` stands for compressing and decompressing. A compressor holds numbers only; what it remembers between steps
    is handed in and out, so that all ranks share one and a checkpoint can hold the memory. One of your own needs
    ``encode``, ``decode`` and ``nbytes``.
    """

    @abstractmethod
    def encode(self, flat: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """The payload of a 1-d floating-point tensor: 1-d uint8. What is random follows from ``seed`` alone."""

    @abstractmethod
    def decode(self, data: torch.Tensor, size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
        """``size`` numbers of ``dtype`` from a payload, made with this ``seed``; ValueError if its length is wrong."""

    @abstractmethod
    def nbytes(self, size: int, width: int) -> int:
        """Bytes of the payload for ``size`` numbers of ``width`` bytes each."""

    @property
    def linear(self) -> bool:
        """Whether the sum of payloads decodes to the sum of the vectors, so that an all-reduce can add them."""
        return False

    def payload_dtype(self, dtype: torch.dtype) -> torch.dtype | None:
        """Of which type the numbers in the payload of a ``dtype`` vector are where it is linear; else None."""
        return None

    @property
    def shared_seed(self) -> bool:
        """Whether all ranks must draw the same; otherwise each draws its own, so that their errors average out."""
        return False

    @property
    def varying(self) -> bool:
        """Whether the length of the payload depends on the numbers, so that receivers must be told."""
        return False

    @property
    def takes_feedback(self) -> bool:
        """Whether ``ErrorFeedback`` may wrap it."""
        return True

    def variance(self, size: int) -> float:
        """ω with E‖C(v) − v‖² ≤ ω‖v‖² if ``E C(v) = v`` by chance; 0 for those that are not random."""
        return 0.0

    def encode_shaped(self, flat: torch.Tensor, shapes: Shapes, seed: int = 0) -> torch.Tensor:
        """As ``encode``, where the tensors that lie end to end in ``flat`` have these shapes."""
        return self.encode(flat, seed)

    def decode_shaped(self, data: torch.Tensor, shapes: Shapes, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
        """As ``decode``, for what ``encode_shaped`` gave."""
        return self.decode(data, count(shapes), dtype, seed)

    def nbytes_shaped(self, shapes: Shapes, width: int) -> int:
        """As ``nbytes``, for what ``encode_shaped`` gives."""
        return self.nbytes(count(shapes), width)

    def compress(self, vector: Any, seed: int = 0) -> Payload:
        """The payload of a torch tensor, a numpy array or a list of floats, of any shape.

        Raises ValueError unless it holds floating-point numbers, and DivergedError where the maths needs finite ones.
        """
        checks.whole("seed", seed)
        flat, shape, kind = flattened(vector)
        return Payload(self.encode_shaped(flat, (shape,), int(seed)), shape, flat.dtype, kind, int(seed))

    def decompress(self, payload: Payload) -> Any:
        """What the receiver sees: of the kind, shape and type of what was compressed."""
        checks.kind("payload", payload, Payload, "what compress() gave")
        flat = self.decode_shaped(payload.data, (payload.shape,), payload.dtype, payload.seed)
        return restored(flat, payload.shape, payload.kind)


def count(shapes: Shapes) -> int:
    """How many numbers tensors of these shapes hold. ``count(((2, 3), (4,))) == 10``."""
    return sum(map(prod, shapes))
