"""The largest numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .base import Compressor
from .packing import require_share
from .sparse import INDEX, kept, largest, listed, spread
from .vectors import require_finite

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TopK(Compressor):
    """The k numbers of greatest magnitude and where they are; zero elsewhere. k is ``fraction`` of all, at least 1.

    ``‖v − C(v)‖² ≤ (1 − k/n) ‖v‖²``. An index takes as much as a float32: 1 % of the numbers is 2 % of the bytes.
    Biased: use it inside ``ErrorFeedback``, or most numbers are never sent.

    Source: Aji and Heafield 2017, arXiv:1704.05021; Stich et al. 2018, arXiv:1809.07599.

        >>> TopK(0.5).decompress(TopK(0.5).compress([1.0, -5.0, 3.0, 0.5]))
        [0.0, -5.0, 3.0, 0.0]
    """

    fraction: float = 0.01

    def __post_init__(self) -> None:
        require_share(self, "fraction", self.fraction)

    def encode(self, flat: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.encode``."""
        indices = largest(flat, kept(flat.numel(), self.fraction))
        require_finite(flat[indices], self)
        return listed(flat, indices)

    def decode(self, data: torch.Tensor, size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.decode``."""
        return spread(self, data, kept(size, self.fraction), size, dtype)

    def nbytes(self, size: int, width: int) -> int:
        """k (4 + width)."""
        return kept(size, self.fraction) * (INDEX + width)
