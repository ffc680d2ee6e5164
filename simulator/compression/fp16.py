"""Half precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .base import Compressor
from .packing import as_bytes, from_bytes, require_length

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class FP16(Compressor):
    """Every number as an IEEE half: 10 bits of fraction, from 6e-8 to 65504.

    The error is at most 2**-11 of a number above 6e-5. What is larger becomes infinite, and NaN stays NaN, as on a
    GPU: a loss scaler has to see them. Source: Micikevicius et al. 2018, arXiv:1710.03740.

        >>> half = FP16()
        >>> half.decompress(half.compress([1.0, 0.1, 1e6]))
        [1.0, 0.0999755859375, inf]
    """

    def encode(self, flat: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.encode``."""
        import torch

        return as_bytes(flat.to(torch.float16, copy=True))

    def decode(self, data: torch.Tensor, size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.decode``."""
        import torch

        require_length(data, self.nbytes(size, dtype.itemsize), self)
        return from_bytes(data, torch.float16).to(dtype)

    def nbytes(self, size: int, width: int) -> int:
        """2 · size."""
        return 2 * size

    @property
    def linear(self) -> bool:
        """See ``Compressor.linear``: up to rounding."""
        return True

    def payload_dtype(self, dtype: torch.dtype) -> torch.dtype | None:
        """torch.float16."""
        import torch

        return torch.float16
