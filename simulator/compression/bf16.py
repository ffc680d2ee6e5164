"""Brain floating point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .base import Compressor
from .packing import as_bytes, from_bytes, require_length

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class BF16(Compressor):
    """Every number as a bfloat16: 7 bits of fraction, the range of float32.

    The error is at most 2**-8 of a number. NaN and infinity stay what they are. Source: Kalamkar et al. 2019,
    arXiv:1905.12322.

        >>> brain = BF16()
        >>> brain.decompress(brain.compress([1.0, 0.1, 1e6]))
        [1.0, 0.10009765625, 999424.0]
    """

    def encode(self, flat: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.encode``."""
        import torch

        return as_bytes(flat.to(torch.bfloat16, copy=True))

    def decode(self, data: torch.Tensor, size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.decode``."""
        import torch

        require_length(data, self.nbytes(size, dtype.itemsize), self)
        return from_bytes(data, torch.bfloat16).to(dtype)

    def nbytes(self, size: int, width: int) -> int:
        """2 · size."""
        return 2 * size

    @property
    def linear(self) -> bool:
        """See ``Compressor.linear``: up to rounding."""
        return True

    def payload_dtype(self, dtype: torch.dtype) -> torch.dtype | None:
        """torch.bfloat16."""
        import torch

        return torch.bfloat16
