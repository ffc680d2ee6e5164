"""What quantisers share: one scale and a small code for each number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..problems.draws import generator
from .packing import as_bytes, from_bytes, pack, packed_bytes, require_length, unpack

if TYPE_CHECKING:
    import torch

    from .base import Compressor


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type that scales are kept and maths is done in: the vector's own, at least float32."""
    import torch

    return torch.promote_types(dtype, torch.float32)


def sealed_bytes(size: int, width: int, bits: int) -> int:
    """Bytes of a scale of max(width, 4) bytes and ``size`` codes; nothing is 0 bytes.

    >>> sealed_bytes(9, width=4, bits=1)
    6
    """
    return max(width, 4) + packed_bytes(size, bits) if size else 0


def seal(scale: torch.Tensor, codes: torch.Tensor, bits: int) -> torch.Tensor:
    """The payload: the scale, then the codes. ``scale`` is a tensor of one number."""
    import torch

    return torch.cat([as_bytes(scale), pack(codes, bits)])


def unseal(
    who: Compressor, data: torch.Tensor, size: int, dtype: torch.dtype, bits: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale (one number, widened) and the codes (uint8). ValueError if the payload has another length."""
    require_length(data, sealed_bytes(size, dtype.itemsize, bits), who)
    if not size:
        return data.new_zeros((), dtype=wide(dtype)), data
    split = wide(dtype).itemsize
    return from_bytes(data[:split], wide(dtype))[0], unpack(data[split:], size, bits)


def shares(sizes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """``sizes / scale``, at most 1; zeros where the scale is zero."""
    import torch

    return (sizes / scale).clamp_(max=1) if scale else torch.zeros_like(sizes)


def rounded(numbers: torch.Tensor, seed: int) -> torch.Tensor:
    """Each number up or down to a whole one by chance, so that its mean is the number itself."""
    import torch

    low = numbers.floor()
    draw = torch.rand(numbers.numel(), generator=generator(seed), dtype=numbers.dtype).to(numbers.device)
    return low + (draw < numbers - low)
