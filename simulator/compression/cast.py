"""What the compressors share that only round: every number as one of two bytes."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .base import Compressor
from .packing import as_bytes, from_bytes, require_length

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Cast(Compressor):
    """Every number in a floating-point type of two bytes. Abstract: use ``FP16`` or ``BF16``."""

    @property
    @abstractmethod
    def type(self) -> torch.dtype:
        """The type in which numbers travel, two bytes wide."""

    def encode(self, flat: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.encode``."""
        return as_bytes(flat.to(self.type, copy=True))

    def decode(self, data: torch.Tensor, size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.decode``."""
        require_length(data, self.nbytes(size, dtype.itemsize), self)
        return from_bytes(data, self.type).to(dtype)

    def nbytes(self, size: int, width: int) -> int:
        """2 · size."""
        return 2 * size

    @property
    def linear(self) -> bool:
        """See ``Compressor.linear``: up to rounding."""
        return True

    def payload_dtype(self, dtype: torch.dtype) -> torch.dtype | None:
        """The type of two bytes, whatever the vector's."""
        return self.type
