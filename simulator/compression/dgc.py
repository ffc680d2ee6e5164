"""Deep gradient compression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import checks
from .base import Compressor
from .packing import require_share
from .sparse import kept, largest, listed
from .top_k import TopK
from .vectors import require_finite

if TYPE_CHECKING:
    import torch

FIRST = 0.25
"""The share that is sent in the first step of a warm-up (Lin et al. 2018, section 3)."""


@dataclass(frozen=True)
class DGC(Compressor):
    """Top-k of what has piled up, with momentum before the pile instead of after it.

    ``u ← m u + g``, ``r ← r + u``; the k largest of r are sent, and there both u and r begin at zero again. Without
    ``masking`` u goes on, and what was sent and what is left together are exactly the sum of all u. The optimizer
    behind it must have no momentum of its own. The paper first clips each rank's gradient to 1/√ranks of the norm, as
    ``aggregate=ClippedMean(norm / √ranks)`` of ``DataParallel`` does.

    - ``fraction``: the share that is sent in the end;
    - ``momentum``: m;
    - ``warmup`` [steps]: so long the share falls exponentially, from 25 %;
    - ``masking``: forget the momentum of what was sent, lest old gradients push twice.

    Without memory (``compress``) it is ``TopK(fraction)``. Source: Lin et al. 2018, arXiv:1712.01887.

        >>> [round(DGC(0.001, warmup=4).fraction_at(step), 3) for step in range(5)]
        [0.25, 0.063, 0.016, 0.004, 0.001]
    """

    fraction: float = 0.001
    momentum: float = 0.9
    warmup: int = 0
    masking: bool = True

    def __post_init__(self) -> None:
        require_share(self, "fraction", self.fraction)
        checks.whole("warmup", self.warmup, of="DGC")
        checks.kind("masking", self.masking, bool, "True or False")
        checks.share_kept("momentum", self.momentum, of="DGC")

    def fraction_at(self, step: int) -> float:
        """The share that is sent in a step, counted from 0."""
        if step >= self.warmup or self.fraction >= FIRST:
            return self.fraction
        return float(FIRST * (self.fraction / FIRST) ** (step / self.warmup))

    def at(self, step: int) -> TopK:
        """What encodes and decodes in a step: ``at(step).nbytes(size, width)`` are the bytes that then travel."""
        return TopK(self.fraction_at(step))

    def feedback(
        self, gradient: torch.Tensor, velocity: torch.Tensor, residual: torch.Tensor, step: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One step: the payload (uint8, for ``at(step).decode``), the new velocity u and the new residual r.

        All are 1-d and as long as the gradient; both memories begin as zeros. Raises DivergedError unless finite.
        """
        velocity = self.momentum * velocity + gradient
        residual = residual + velocity
        sent = largest(residual, kept(residual.numel(), self.fraction_at(step)))
        require_finite(residual[sent], self)
        data = listed(residual, sent)
        residual[sent] = 0
        if self.masking:
            velocity[sent] = 0
        return data, velocity, residual

    def encode(self, flat: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.encode``: without memory, after the warm-up."""
        return TopK(self.fraction).encode(flat, seed)

    def decode(self, data: torch.Tensor, size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.decode``: after the warm-up."""
        return TopK(self.fraction).decode(data, size, dtype, seed)

    def nbytes(self, size: int, width: int) -> int:
        """After the warm-up: k (4 + width)."""
        return TopK(self.fraction).nbytes(size, width)

    @property
    def takes_feedback(self) -> bool:
        """It has memories of its own."""
        return False
