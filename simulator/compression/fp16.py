"""Half precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .cast import Cast

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class FP16(Cast):
    """Every number as an IEEE half: 10 bits of fraction, from 6e-8 to 65504.

    The error is at most 2**-11 of a number above 6e-5. What is larger becomes infinite, and NaN stays NaN, as on a
    GPU: a loss scaler has to see them. Source: Micikevicius et al. 2018, arXiv:1710.03740.

        >>> half = FP16()
        >>> half.decompress(half.compress([1.0, 0.1, 1e6]))
        [1.0, 0.0999755859375, inf]
    """

    @property
    def type(self) -> torch.dtype:
        """torch.float16."""
        import torch

        return torch.float16
