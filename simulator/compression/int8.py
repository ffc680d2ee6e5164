"""Eight-bit integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .base import Compressor
from .levels import seal, sealed_bytes, shares, unseal, wide
from .vectors import require_finite

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Int8(Compressor):
    """Whole multiples of ``max|v| / 127``, rounded to the nearest: one byte for each number, and the maximum.

    The error is at most ``max|v| / 254`` each. Not random, so slightly biased: wrap it in ``ErrorFeedback`` where that
    matters, or take ``QSGD(127)``. Source: Dettmers 2016, arXiv:1511.04561, for 8-bit exchange.

        >>> Int8().decompress(Int8().compress([127.0, 3.4, -1.0]))
        [127.0, 3.0, -1.0]
    """

    def encode(self, flat: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.encode``."""
        import torch

        if not flat.numel():
            return flat.new_empty(0, dtype=torch.uint8)
        numbers = flat.to(wide(flat.dtype))
        top = require_finite(numbers.abs().amax(), self)
        steps = (shares(numbers.abs(), top) * 127).round().copysign(numbers)
        return seal(top, (steps + 127).to(torch.uint8), 8)

    def decode(self, data: torch.Tensor, size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.decode``."""
        top, codes = unseal(self, data, size, dtype, 8)
        return ((codes.to(top.dtype) - 127) / 127 * top).to(dtype)

    def nbytes(self, size: int, width: int) -> int:
        """size, and the maximum."""
        return sealed_bytes(size, width, 8)
