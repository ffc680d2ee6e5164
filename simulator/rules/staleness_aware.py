"""A smaller learning rate for older gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .base import Rule, require_rule
from .lending import rates

if TYPE_CHECKING:
    import torch

    from .base import Parameters


@dataclass(frozen=True)
class StalenessAware(Rule):
    """Any rule, with its learning rate divided by ``staleness + 1`` for that update.

    On a quadratic it is stable for every constant staleness while ``lr · λ < π/2``.

    Source: Zhang, Gupta, Lian and Liu 2015, arXiv:1511.05950.

        >>> from simulator.rules import SGD
        >>> StalenessAware(SGD(0.1))
        StalenessAware(rule=SGD(lr=0.1, weight_decay=0.0))
    """

    rule: Rule

    def __post_init__(self) -> None:
        require_rule(self, self.rule)

    @property
    def inside(self) -> tuple[Rule, ...]:
        """See ``Rule.inside``."""
        return (self.rule,)

    def optimizer(self, parameters: Parameters) -> torch.optim.Optimizer:
        """See ``Rule.optimizer``."""
        return self.rule.optimizer(parameters)

    def step(self, optimizer: torch.optim.Optimizer, staleness: int = 0, since: torch.Tensor | None = None) -> None:
        """See ``Rule.step``. Raises ValueError for a negative staleness."""
        if staleness < 0:
            raise ValueError(f"staleness counts updates since the parameters were read, from 0; got {staleness}")
        with rates(optimizer, lambda rate: rate / (staleness + 1)):
            self.rule.step(optimizer, staleness, since)
