"""A learning rate that changes as the training goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import checks
from ..schedules import Schedule
from .around import Around
from .base import nested
from .lending import rates

if TYPE_CHECKING:
    import torch

    from .base import Parameters


@dataclass(frozen=True)
class Scheduled(Around):
    """Any rule, whose update k (from 0) has the learning rate ``lr · schedule(k)``.

    k is the number of updates made so far, in the optimizer's groups as "updates": a server that updates with every
    worker's gradient counts each. An update that a ``Scaled`` inside skips counts too.

        >>> from simulator.rules import SGD
        >>> from simulator.schedules import Warmup
        >>> Scheduled(SGD(3.2), Warmup(5))
        Scheduled(rule=SGD(lr=3.2, weight_decay=0.0), schedule=Warmup(steps=5, start=0.0))
    """

    schedule: Schedule

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.kind("schedule", self.schedule, Schedule, "one of simulator.schedules, such as schedules.Warmup(100)")
        if any(isinstance(part, Scheduled) for part in nested(self.rule)):
            raise ValueError(
                f"a rule has one schedule; got {self} around another; multiply them: Scheduled(rule, first * second)"
            )

    def optimizer(self, parameters: Parameters) -> torch.optim.Optimizer:
        """See ``Rule.optimizer``."""
        optimizer = super().optimizer(parameters)
        for group in optimizer.param_groups:
            group["updates"] = 0
        return optimizer

    def step(self, optimizer: torch.optim.Optimizer, staleness: int = 0, since: torch.Tensor | None = None) -> None:
        """See ``Rule.step``."""
        made = optimizer.param_groups[0]["updates"]
        factor = self.schedule(made)
        with rates(optimizer, lambda rate: rate * factor):
            self.rule.step(optimizer, staleness, since)
        for group in optimizer.param_groups:
            group["updates"] = made + 1
