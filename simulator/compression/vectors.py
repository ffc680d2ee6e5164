"""Vectors of the three kinds that users hand in, as flat tensors and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import DivergedError

if TYPE_CHECKING:
    import torch


def flattened(vector: Any) -> tuple[torch.Tensor, tuple[int, ...], str]:
    """A 1-d tensor, the shape, and the kind: torch, numpy or list. Raises ValueError for anything else.

    >>> flattened([[1.0, 2.0], [3.0, 4.0]])
    (tensor([1., 2., 3., 4.], dtype=torch.float64), (2, 2), 'list')
    """
    tensor, kind = _tensor(vector)
    if not tensor.is_floating_point():
        raise ValueError(f"a compressor takes floating-point numbers; got {tensor.dtype}; convert them first")
    return tensor.detach().reshape(-1), tuple(tensor.shape), kind


def restored(flat: torch.Tensor, shape: tuple[int, ...], kind: str) -> Any:
    """The vector of a kind and a shape: what ``flattened`` took apart."""
    tensor = flat.reshape(shape)
    if kind == "numpy":
        return tensor.cpu().numpy()
    return tensor.tolist() if kind == "list" else tensor


def _tensor(vector: Any) -> tuple[torch.Tensor, str]:
    import numpy
    import torch

    if isinstance(vector, torch.Tensor):
        return vector, "torch"
    try:
        if isinstance(vector, numpy.ndarray):
            # A copy, for torch wants memory that may be written, laid out forwards and in this machine's byte order.
            return torch.from_numpy(numpy.array(vector, dtype=vector.dtype.newbyteorder("="), order="C")), "numpy"
        if isinstance(vector, (list, tuple)):
            return torch.tensor(vector, dtype=torch.float64), "list"
    except (TypeError, ValueError) as error:
        raise ValueError(f"a vector holds float32 or float64 numbers, in rows of one length; {error}") from error
    raise ValueError(f"a vector is a torch tensor, a numpy array or a list of floats; got {type(vector).__name__}")


def require_finite(numbers: torch.Tensor, who: object) -> torch.Tensor:
    """The numbers, or DivergedError. Handed a maximum, a norm or a mean it vouches for all that went into it."""
    import torch

    if not torch.isfinite(numbers).all():
        raise DivergedError(
            f"{type(who).__name__} compresses finite numbers, whose norm its type can hold; got NaN, infinity or"
            " overflow: the training diverged, or a loss scale is too large; try a smaller learning rate"
        )
    return numbers
