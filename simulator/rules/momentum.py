"""Gradient descent with momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import checks
from .base import Rule, require_fraction, require_lr, require_not_negative

if TYPE_CHECKING:
    import torch

    from .base import Parameters


@dataclass(frozen=True)
class Momentum(Rule):
    """Heavy ball: ``v ← beta · v + g``, ``x ← x − lr · v``; with ``nesterov``, ``x ← x − lr · (g + beta · v)``.

    A constant gradient ends up multiplied by ``1 / (1 − beta)``. Momentum and staleness add up: with beta 0.9 one
    update of delay lowers the stable ``lr · λ`` from 3.8 to 0.1 (``theory.largest_stable_rate``).

    Raises ValueError for a rate that is not positive and a momentum outside 0 … 1. Source: Polyak 1964; Sutskever et
    al. 2013 for the form of Nesterov's.

        >>> Momentum(0.1, beta=0.5).beta
        0.5
    """

    lr: float
    beta: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_lr(self, self.lr)
        require_fraction(self, "beta", self.beta)
        require_not_negative(self, "weight_decay", self.weight_decay)
        if checks.flag("nesterov", self.nesterov) and self.beta == 0:
            raise ValueError("Momentum: nesterov looks ahead along the momentum; got beta=0; give beta > 0")

    @property
    def state(self) -> int:
        """See ``Rule.state``."""
        return 1 if self.beta else 0

    def optimizer(self, parameters: Parameters) -> torch.optim.Optimizer:
        """See ``Rule.optimizer``."""
        import torch

        return torch.optim.SGD(
            parameters, lr=self.lr, momentum=self.beta, nesterov=self.nesterov, weight_decay=self.weight_decay
        )
