"""The maths of local and federated methods: functions of tensors, equal where their numbers are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor


def zeros(like: Tensor) -> Tensor:
    """Zeros in the shape of a tensor."""
    return like.new_zeros(like.shape)


@dataclass(frozen=True)
class Difference:
    """``scale · (a − b)``."""

    __name__: ClassVar[str] = "difference"
    scale: float = 1.0

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Of two tensors of one shape a third."""
        return (a - b) * self.scale


@dataclass(frozen=True)
class Mix:
    """``(1 − share) · mine + share · theirs``."""

    __name__: ClassVar[str] = "mix"
    share: float

    def __call__(self, mine: Tensor, theirs: Tensor) -> Tensor:
        """Of two tensors of one shape a third."""
        return mine * (1 - self.share) + theirs * self.share


@dataclass(frozen=True)
class OuterStep:
    """Gradient descent with momentum from an anchor: ``v ← β v + Δ``, ``x ← anchor − lr · (Δ + β v)`` (Nesterov)."""

    __name__: ClassVar[str] = "outer step"
    lr: float
    momentum: float
    nesterov: bool

    def __call__(self, anchor: Tensor, velocity: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(the parameters, the next anchor, the next velocity)."""
        velocity = velocity * self.momentum + slope
        step = slope + velocity * self.momentum if self.nesterov else velocity
        params = anchor - step * self.lr
        return params, params, velocity
