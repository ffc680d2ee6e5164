"""Brain floating point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .cast import Cast

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class BF16(Cast):
    """Every number as a bfloat16: 7 bits of fraction, the range of float32.

    The error is at most 2**-8 of a number. NaN and infinity stay what they are. Source: Kalamkar et al. 2019,
    arXiv:1905.12322.

        >>> brain = BF16()
        >>> brain.decompress(brain.compress([1.0, 0.1, 1e6]))
        [1.0, 0.10009765625, 999424.0]
    """

    @property
    def type(self) -> torch.dtype:
        """torch.bfloat16."""
        import torch

        return torch.bfloat16
