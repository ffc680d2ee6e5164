"""What rules share that wrap another one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .base import Rule

if TYPE_CHECKING:
    import torch

    from .base import Parameters


@dataclass(frozen=True)
class Around(Rule):
    """Another rule, whose optimizer it uses. Abstract: use ``Clipped``, ``Scaled``, …

    Raises ValueError unless it is given a rule.
    """

    rule: Rule

    def __post_init__(self) -> None:
        _require_rule(type(self).__name__, self.rule)

    @property
    def inside(self) -> tuple[Rule, ...]:
        """See ``Rule.inside``."""
        return (self.rule,)

    def optimizer(self, parameters: Parameters) -> torch.optim.Optimizer:
        """See ``Rule.optimizer``."""
        return self.rule.optimizer(parameters)


def _require_rule(name: str, rule: object) -> None:
    if not isinstance(rule, Rule):
        raise ValueError(f"{name} wraps a rule; got {rule!r}; write for instance {name}(SGD(0.1))")
