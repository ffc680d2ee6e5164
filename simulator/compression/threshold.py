"""Numbers above a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import checks
from .base import Compressor
from .packing import require_share
from .sparse import INDEX, kept, listed, spread
from .vectors import require_finite

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Threshold(Compressor):
    """The numbers of magnitude ``threshold`` or more and where they are; zero elsewhere. Use it in ``ErrorFeedback``.

    How many are sent is known only from the numbers: in a strategy, whose program is checked and timed without them,
    it needs the expected ``density``, the share that is sent. The error is below ``threshold`` for every number.
    Source: Strom 2015, Interspeech; Aji and Heafield 2017, arXiv:1704.05021.

        >>> Threshold(2.0).decompress(Threshold(2.0).compress([1.0, -5.0, 2.0]))
        [0.0, -5.0, 2.0]
        >>> Threshold(2.0, density=0.1).nbytes(1000, width=4)
        800
    """

    threshold: float
    density: float | None = None

    def __post_init__(self) -> None:
        checks.number("threshold", self.threshold, least=0, of="Threshold")
        if self.density is not None:
            require_share(self, "density", self.density)

    def encode(self, flat: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.encode``."""
        sizes = flat.abs()
        if flat.numel():
            require_finite(sizes.amax(), self)
        return listed(flat, (sizes >= self.threshold).nonzero().reshape(-1))

    def decode(self, data: torch.Tensor, size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.decode``."""
        return spread(self, data, min(size, data.numel() // (INDEX + dtype.itemsize)), size, dtype)

    def nbytes(self, size: int, width: int) -> int:
        """density · size · (4 + width), as expected. Raises ValueError without a density."""
        if self.density is None:
            raise ValueError(
                f"how many numbers reach a threshold depends on them; got {self} and no numbers; say what to expect,"
                f" for instance Threshold({self.threshold:g}, density=0.01)"
            )
        return kept(size, self.density) * (INDEX + width)

    @property
    def varying(self) -> bool:
        """See ``Compressor.varying``."""
        return True
