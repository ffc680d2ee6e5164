"""Numbers drawn by lot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..problems.draws import generator
from .base import Compressor
from .packing import as_bytes, from_bytes, require_length, require_share
from .sparse import kept
from .vectors import require_finite

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RandomK(Compressor):
    """k numbers drawn by lot, times n/k so that ``E C(v) = v``; zero elsewhere. k is ``fraction`` of all, at least 1.

    ``E‖C(v) − v‖² = (n/k − 1) ‖v‖²``. Which ones follows from the seed, so only numbers travel; where all ranks draw
    from one seed, payloads can be added by an all-reduce. Inside ``ErrorFeedback`` the factor n/k falls away.

    Source: Stich et al. 2018, arXiv:1809.07599.

        >>> RandomK(0.25).nbytes(1000, width=4)
        1000
    """

    fraction: float = 0.01

    def __post_init__(self) -> None:
        require_share(self, "fraction", self.fraction)

    def encode(self, flat: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.encode``."""
        require_finite(flat, self)  # of all: which numbers are sent must not decide whether a NaN is seen
        return as_bytes(flat[self._drawn(flat.numel(), seed).to(flat.device)])

    def decode(self, data: torch.Tensor, size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.decode``."""
        import torch

        require_length(data, self.nbytes(size, dtype.itemsize), self)
        flat = torch.zeros(size, dtype=dtype, device=data.device)
        flat[self._drawn(size, seed).to(data.device)] = from_bytes(data, dtype) * (1 + self.variance(size))
        return flat

    def nbytes(self, size: int, width: int) -> int:
        """k · width."""
        return kept(size, self.fraction) * width

    @property
    def linear(self) -> bool:
        """See ``Compressor.linear``: with one seed."""
        return True

    def payload_dtype(self, dtype: torch.dtype) -> torch.dtype | None:
        """The vector's own."""
        return dtype

    @property
    def shared_seed(self) -> bool:
        """See ``Compressor.shared_seed``."""
        return True

    def variance(self, size: int) -> float:
        """n/k − 1."""
        return size / kept(size, self.fraction) - 1 if size else 0.0

    def _drawn(self, size: int, seed: int) -> torch.Tensor:
        import torch

        return torch.randperm(size, generator=generator(seed))[: kept(size, self.fraction)]
