"""No compression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .base import Compressor
from .packing import as_bytes, from_bytes, require_length

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Identity(Compressor):
    """``C(v) = v``: every number as it is, NaN and infinity too. What compressed exchanges are compared with.

        >>> Identity().compress([1.0, 2.0]).nbytes
        16
    """

    def encode(self, flat: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.encode``."""
        return as_bytes(flat).clone()  # what is sent must not change when the gradient does

    def decode(self, data: torch.Tensor, size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.decode``."""
        require_length(data, self.nbytes(size, dtype.itemsize), self)
        return from_bytes(data, dtype)

    def nbytes(self, size: int, width: int) -> int:
        """size · width."""
        return size * width

    @property
    def linear(self) -> bool:
        """See ``Compressor.linear``."""
        return True

    def payload_dtype(self, dtype: torch.dtype) -> torch.dtype | None:
        """The vector's own."""
        return dtype
