"""A smaller learning rate for older gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .around import Around
from .lending import rates

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class StalenessAware(Around):
    """Any rule, with its learning rate divided by ``staleness + 1`` for that update.

    On a quadratic it is stable for every constant staleness while ``lr · λ < π/2``.

    Source: Zhang, Gupta, Lian and Liu 2015, arXiv:1511.05950, who divide by the staleness itself where it is not 0.

        >>> from simulator.rules import SGD
        >>> StalenessAware(SGD(0.1))
        StalenessAware(rule=SGD(lr=0.1, weight_decay=0.0))
    """

    def step(self, optimizer: torch.optim.Optimizer, staleness: int = 0, since: torch.Tensor | None = None) -> None:
        """See ``Rule.step``. Raises ValueError for a negative staleness."""
        if staleness < 0:
            raise ValueError(f"staleness counts updates since the parameters were read, from 0; got {staleness}")
        with rates(optimizer, lambda rate: rate / (staleness + 1)):
            self.rule.step(optimizer, staleness, since)
