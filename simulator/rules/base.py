"""What every rule can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import checks

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Rule(ABC):
    """How parameters are updated from gradients. Abstract: use ``SGD``, ``Momentum``, ``Adam``, or wrap one.

    A rule holds numbers only. What it remembers between updates (momentum, moments) lives in the optimizer that
    it makes, so that many ranks can share one rule. A rule of your own needs ``optimizer`` alone.
    """

    @abstractmethod
    def optimizer(self, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
        """An optimizer for ``parameters``: 1-d tensors, the part of the model that a rank updates."""

    def step(self, optimizer: torch.optim.Optimizer, staleness: int = 0, since: torch.Tensor | None = None) -> None:
        """Apply one update with the gradients in ``.grad``, which stay as they are.

        ``staleness`` [updates]: how many were applied since the gradient's parameters were read. ``since``: those
        parameters, as one 1-d tensor laid out like the optimizer's, where ``needs_past`` asks for them.
        """
        optimizer.step()

    @property
    def needs_past(self) -> bool:
        """Whether ``step`` wants ``since``."""
        return False


def require_lr(rule: Rule, lr: float) -> None:
    """Raise ValueError unless the learning rate is a positive number."""
    checks.number("lr", lr, above=0, of=type(rule).__name__)


def require_fraction(rule: Rule, name: str, value: float) -> None:
    """Raise ValueError unless ``0 <= value < 1``."""
    if not 0 <= checks.number(name, value, of=type(rule).__name__) < 1:
        raise ValueError(
            f"{type(rule).__name__}: {name} is the share kept of the past, 0 <= {name} < 1 (at 1 nothing is ever"
            f" forgotten); got {name}={value}; 0.9 is usual"
        )


def require_not_negative(rule: Rule, name: str, value: float) -> None:
    """Raise ValueError unless ``value`` is finite and at least zero."""
    checks.number(name, value, least=0, of=type(rule).__name__)


def require_rule(wrapper: Rule, rule: object) -> None:
    """Raise ValueError unless ``rule`` is a Rule."""
    if not isinstance(rule, Rule):
        name = type(wrapper).__name__
        raise ValueError(f"{name} wraps a rule; got {rule!r}; write for instance {name}(SGD(0.1))")
