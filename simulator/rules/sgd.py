"""Gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .base import Rule, require_lr, require_not_negative

if TYPE_CHECKING:
    import torch

    from .base import Parameters


@dataclass(frozen=True)
class SGD(Rule):
    """Gradient descent: ``x ← x − lr · (g + weight_decay · x)``.

    It is stable on a quadratic of curvature λ while ``lr · λ < 2``; with gradients that are τ updates old, only
    while ``lr · λ < 2 sin(π / (2 (2τ + 1)))``.

        >>> SGD(0.1)
        SGD(lr=0.1, weight_decay=0.0)
    """

    lr: float
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_lr(self, self.lr)
        require_not_negative(self, "weight_decay", self.weight_decay)

    def optimizer(self, parameters: Parameters) -> torch.optim.Optimizer:
        """See ``Rule.optimizer``."""
        import torch

        return torch.optim.SGD(parameters, lr=self.lr, weight_decay=self.weight_decay)
