"""Numbers as bytes: several small codes to a byte, floating-point numbers as they lie in memory."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

from .. import checks

if TYPE_CHECKING:
    import torch


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """``codes`` (1-d uint8, each below ``2**bits``) side by side: ceil(n·bits/8) bytes; bits from 1 to 8.

    >>> import torch
    >>> pack(torch.tensor([1, 2, 3], dtype=torch.uint8), bits=2).tolist()
    [57]
    """
    import torch

    per, span, word = _groups(bits)
    groups = torch.nn.functional.pad(codes, (0, -codes.numel() % per)).view(-1, per).to(word)
    words = (groups << _steps(per, bits, groups)).sum(1, dtype=word)  # their bits are disjoint: adding joins them
    if span > 1:
        words = (words[:, None] >> _steps(span, 8, words)) & 255
    return words.reshape(-1).to(torch.uint8)[: packed_bytes(codes.numel(), bits)]


def unpack(data: torch.Tensor, size: int, bits: int) -> torch.Tensor:
    """The ``size`` codes that were packed, as uint8.

    >>> import torch
    >>> unpack(torch.tensor([57], dtype=torch.uint8), size=3, bits=2).tolist()
    [1, 2, 3]
    """
    import torch

    per, span, word = _groups(bits)
    groups = torch.nn.functional.pad(data, (0, -data.numel() % span)).view(-1, span).to(word)
    words = (groups << _steps(span, 8, groups)).sum(1, dtype=word)
    codes = (words[:, None] >> _steps(per, bits, words)) & (2**bits - 1)
    return codes.reshape(-1)[:size].to(torch.uint8)


def packed_bytes(size: int, bits: int) -> int:
    """ceil(size·bits/8). ``packed_bytes(9, 1) == 2``."""
    return -(-size * bits // 8)


def as_bytes(numbers: torch.Tensor) -> torch.Tensor:
    """Numbers as they lie in memory: 1-d uint8."""
    import torch

    if not numbers.numel():  # whose strides may be anything
        return torch.empty(0, dtype=torch.uint8, device=numbers.device)
    return numbers.contiguous().reshape(-1).view(torch.uint8)


def from_bytes(data: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Numbers of ``dtype`` from bytes; a copy, for a piece of a larger payload may begin anywhere."""
    return data.clone().view(dtype)


def require_length(data: torch.Tensor, expected: int, who: object) -> None:
    """Raise ValueError unless a payload is as long as it must be."""
    if data.numel() != expected:
        raise ValueError(
            f"the payload of {who} has {expected} bytes here; got {data.numel()}: both ends need the same compressor,"
            " size and type"
        )


def require_share(who: object, name: str, value: float) -> None:
    """Raise ValueError unless ``0 < value <= 1``."""
    if checks.number(name, value, above=0, of=type(who).__name__) > 1:
        raise ValueError(
            f"{type(who).__name__}: {name} is the share of the numbers that is sent, 0 < {name} <= 1; got"
            f" {name}={value}; 0.01 sends one of a hundred"
        )


def _groups(bits: int) -> tuple[int, int, torch.dtype]:
    """Codes and bytes in the smallest group that ends at a byte, and the type of a word that holds one."""
    import torch

    per = 8 // gcd(8, bits)
    span = per * bits // 8
    return per, span, torch.uint8 if span == 1 else torch.int64


def _steps(many: int, bits: int, like: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.arange(0, many * bits, bits, dtype=like.dtype, device=like.device)
