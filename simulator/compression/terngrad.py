"""Ternary gradients."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

from .base import Compressor
from .levels import rounded, seal, sealed_bytes, shares, unseal, wide
from .vectors import require_finite

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TernGrad(Compressor):
    """−m, 0 or m with ``m = max|v|``: not zero with probability ``|v| / m``, so that ``E C(v) = v``. Two bits each.

    ``E‖C(v) − v‖² = m‖v‖₁ − ‖v‖²``: less than that of ``QSGD(1)``, which scales by the norm instead of the maximum.

    Source: Wen et al. 2017, arXiv:1705.07878 (without the clipping of its section 5: clip gradients before).

        >>> TernGrad().decompress(TernGrad().compress([2.0, 0.0, -2.0]))
        [2.0, 0.0, -2.0]
    """

    def encode(self, flat: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.encode``."""
        import torch

        if not flat.numel():
            return flat.new_empty(0, dtype=torch.uint8)
        numbers = flat.to(wide(flat.dtype))
        top = require_finite(numbers.abs().amax(), self)
        ones = rounded(shares(numbers.abs(), top), seed)
        return seal(top, (ones.copysign(numbers) + 1).to(torch.uint8), 2)

    def decode(self, data: torch.Tensor, size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.decode``."""
        top, codes = unseal(self, data, size, dtype, 2)
        return ((codes.to(top.dtype) - 1) * top).to(dtype)

    def nbytes(self, size: int, width: int) -> int:
        """⌈size / 4⌉, and the maximum."""
        return sealed_bytes(size, width, 2)

    def variance(self, size: int) -> float:
        """(√n − 1)/2: the largest that ``m‖v‖₁/‖v‖² − 1`` can be."""
        return (sqrt(size) - 1) / 2 if size else 0.0
