"""Gradients that are too long are made shorter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from .. import checks
from .around import Around
from .lending import gradients, parameters_of
from .scaled import require_unscaled

if TYPE_CHECKING:
    import torch


Scalar = TypeVar("Scalar", "float", "torch.Tensor")


@dataclass(frozen=True)
class Clipped(Around):
    """Any rule, with its gradient clipped: to a length of at most ``norm``, or every number to ±``value``.

    The norm is *local*: that of the gradient this rank updates with. Under data parallelism that is the average of
    the whole model; each stage of a pipeline has a norm of its own. A rank that has but a piece of the vector it
    stands for cannot know the norm, so with ``norm`` this is not elementwise.

    Source: Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063.

        >>> from simulator.rules import SGD
        >>> Clipped(SGD(0.1), norm=1.0).elementwise, Clipped(SGD(0.1), value=0.5).elementwise
        (False, True)
    """

    norm: float | None = None
    value: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_unscaled(self, self.rule)
        if (self.norm is None) == (self.value is None):
            raise ValueError(
                f"Clipped: give either norm or value; got norm={self.norm}, value={self.value};"
                " for both, clip twice: Clipped(Clipped(rule, norm=…), value=…)"
            )
        name, limit = ("value", self.value) if self.norm is None else ("norm", self.norm)
        checks.number(name, limit, above=0, of="Clipped")

    @property
    def elementwise(self) -> bool:
        """See ``Rule.elementwise``."""
        return self.norm is None and self.rule.elementwise

    def step(self, optimizer: torch.optim.Optimizer, staleness: int = 0, since: torch.Tensor | None = None) -> None:
        """See ``Rule.step``."""
        parameters = parameters_of(optimizer)
        found = [parameter.grad for parameter in parameters if parameter.grad is not None]
        with gradients(parameters, self._clipped(found)):
            self.rule.step(optimizer, staleness, since)

    def _clipped(self, found: list[torch.Tensor]) -> list[torch.Tensor]:
        if self.value is not None:
            return [gradient.clamp(-self.value, self.value) for gradient in found]
        assert self.norm is not None
        squares = sum(map(squared_norm, found))
        factor = clip_factor(squares, self.norm)  # type: ignore[type-var]
        return [gradient * factor for gradient in found]



def squared_norm(gradient: torch.Tensor) -> torch.Tensor:
    """``‖g‖²`` in 4 bytes at least: in 2, the squares of fp16 overflow from 256 on, and vanish below 2e-4.

    >>> import torch
    >>> squared_norm(torch.tensor([300.0, 400.0], dtype=torch.float16))
    tensor(250000.)
    """
    import torch

    return gradient.to(torch.promote_types(gradient.dtype, torch.float32)).square().sum()


def clip_factor(squared_norm: Scalar, limit: float) -> Scalar | float:
    """By what a gradient is multiplied so that it is no longer than ``limit``: ``min(1, limit / (norm + 1e-6))``.

    ``squared_norm`` is a number or a tensor of one; the squares of pieces add up. It is PyTorch's formula, small
    number included. A norm that is no number gives no number.

        >>> clip_factor(0.25, limit=1.0)
        1.0
        >>> round(clip_factor(16.0, limit=1.0), 6)
        0.25
    """
    factor = limit / (squared_norm**0.5 + 1e-6)
    return 1.0 if factor >= 1 else factor
