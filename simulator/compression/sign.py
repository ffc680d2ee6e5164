"""Signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import checks
from .base import Compressor
from .levels import seal, sealed_bytes, unseal, wide
from .packing import pack, packed_bytes, require_length, unpack
from .vectors import require_finite

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sign(Compressor):
    """``C(v) = (‖v‖₁/n) sign(v)``: one bit for each number, and their mean magnitude. Zero counts as positive.

    With ``scaled=False`` the signs alone (signSGD): the step is as long as ever where the gradient vanishes, and on
    some convex problems it never converges. Scaled and with ``ErrorFeedback`` it converges like SGD.

    Source: Bernstein et al. 2018, arXiv:1802.04434; Karimireddy et al. 2019, arXiv:1901.09847.

        >>> Sign().decompress(Sign().compress([3.0, -1.0]))
        [2.0, -2.0]
        >>> Sign(scaled=False).decompress(Sign(scaled=False).compress([3.0, -1.0]))
        [1.0, -1.0]
    """

    scaled: bool = True

    def __post_init__(self) -> None:
        checks.kind("scaled", self.scaled, bool, "True or False")

    def encode(self, flat: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.encode``."""
        import torch

        if not flat.numel():
            return flat.new_empty(0, dtype=torch.uint8)
        scale = require_finite(flat.abs().mean(dtype=torch.float64).to(wide(flat.dtype)), self)
        bits = (flat >= 0).to(torch.uint8)
        return seal(scale, bits, 1) if self.scaled else pack(bits, 1)

    def decode(self, data: torch.Tensor, size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
        """See ``Compressor.decode``."""
        if self.scaled:
            scale, bits = unseal(self, data, size, dtype, 1)
            return (bits.to(scale.dtype) * 2 - 1).mul_(scale).to(dtype)
        require_length(data, self.nbytes(size, dtype.itemsize), self)
        return unpack(data, size, 1).to(dtype) * 2 - 1

    def nbytes(self, size: int, width: int) -> int:
        """⌈size / 8⌉, and the scale."""
        return sealed_bytes(size, width, 1) if self.scaled else packed_bytes(size, 1)

    @property
    def takes_feedback(self) -> bool:
        """Only when scaled: bare signs do not shrink with what they stand for, and the memory would grow."""
        return self.scaled
