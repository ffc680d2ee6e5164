"""What sparse methods share: which numbers are sent, and the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .packing import as_bytes, from_bytes, require_length

if TYPE_CHECKING:
    import torch

    from .base import Compressor

INDEX = 4
"""Bytes of an index: int32."""


def kept(size: int, fraction: float) -> int:
    """How many of ``size`` numbers are sent: the nearest whole number, at least one.

    >>> kept(1000, 0.01), kept(3, 0.01), kept(0, 0.01)
    (10, 1, 0)
    """
    return min(size, max(1, round(fraction * size)))


def largest(flat: torch.Tensor, k: int) -> torch.Tensor:
    """Where the ``k`` numbers of greatest magnitude are, in ascending order. NaN counts as the greatest."""
    import torch

    return torch.topk(flat.abs(), k, sorted=False).indices.sort().values


def listed(flat: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """The payload: all indices as int32, then the numbers in their own type."""
    import torch

    if flat.numel() > 2**31:
        raise ValueError(
            f"an index of 4 bytes reaches 2**31 numbers; got {flat.numel()}; compress the vector in several parts"
        )
    return torch.cat([as_bytes(indices.to(torch.int32)), as_bytes(flat[indices])])


def spread(who: Compressor, data: torch.Tensor, k: int, size: int, dtype: torch.dtype) -> torch.Tensor:
    """``size`` numbers: those of the payload at their places, zero elsewhere."""
    import torch

    require_length(data, k * (INDEX + dtype.itemsize), who)
    indices = from_bytes(data[: k * INDEX], torch.int32).long()
    flat = torch.zeros(size, dtype=dtype, device=data.device)
    flat[indices] = from_bytes(data[k * INDEX :], dtype)
    return flat
