"""Stochastic quantisation."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

from .. import checks
from .base import Compressor
from .levels import rounded, seal, sealed_bytes, shares, unseal, wide
from .vectors import require_finite

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class QSGD(Compressor):
    """Multiples of ``‖v‖ / s``, rounded up or down by chance so that ``E C(v) = v``; s = ``levels``.

    ``E‖C(v) − v‖² ≤ min(n/s², √n/s) ‖v‖²``, and on average at most ``s(s + √n)`` numbers are not zero. The 2s + 1
    possible values take ⌈log₂(2s + 1)⌉ bits each, of fixed length, where the paper codes by frequency.

    Source: Alistarh et al. 2017, arXiv:1610.02132, lemma 3.1.

        >>> QSGD(levels=4).nbytes(1000, width=4)  # 4 bits each, and the norm
        504
    """

    levels: int = 4

    def __post_init__(self) -> None:
        if checks.whole("levels", self.levels, least=1, of="QSGD") > 127:
            raise ValueError(
                f"QSGD: levels is at most 127, so that a number fits into a byte; got levels={self.levels}; FP16()"
                " keeps more"
            )

    @property
    def bits(self) -> int:
        """Bits for each number."""
        return (2 * self.levels).bit_length()

    def encode(self, flat: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.encode``."""
        import torch

        if not flat.numel():
            return flat.new_empty(0, dtype=torch.uint8)
        numbers = flat.to(wide(flat.dtype))
        norm = torch.linalg.vector_norm(numbers, dtype=torch.float64).to(numbers.dtype)
        sizes = rounded(shares(numbers.abs(), require_finite(norm, self)) * self.levels, seed)
        return seal(norm, (sizes.copysign(numbers) + self.levels).to(torch.uint8), self.bits)

    def decode(self, data: torch.Tensor, size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.decode``."""
        norm, codes = unseal(self, data, size, dtype, self.bits)
        return ((codes.to(norm.dtype) - self.levels) / self.levels * norm).to(dtype)

    def nbytes(self, size: int, width: int) -> int:
        """⌈size · bits / 8⌉, and the norm."""
        return sealed_bytes(size, width, self.bits)

    def variance(self, size: int) -> float:
        """min(n/s², √n/s)."""
        return min(size / self.levels**2, sqrt(size) / self.levels)
