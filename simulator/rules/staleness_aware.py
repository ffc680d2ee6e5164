"""A smaller learning rate for older gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .base import Rule, require_rule

if TYPE_CHECKING:
    import torch


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

    def optimizer(self, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
        """See ``Rule.optimizer``."""
        return self.rule.optimizer(parameters)

    def step(self, optimizer: torch.optim.Optimizer, staleness: int = 0, since: torch.Tensor | None = None) -> None:
        """See ``Rule.step``. Raises ValueError for a negative staleness."""
        if staleness < 0:
            raise ValueError(f"staleness counts updates since the parameters were read, from 0; got {staleness}")
        rates = [group["lr"] for group in optimizer.param_groups]
        try:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate / (staleness + 1)
            self.rule.step(optimizer, staleness, since)
        finally:  # the next update starts from the full rate again
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate

    @property
    def needs_past(self) -> bool:
        """See ``Rule.needs_past``."""
        return self.rule.needs_past
