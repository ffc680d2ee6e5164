"""What every rule can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, TypeAlias

from .. import checks

if TYPE_CHECKING:
    import torch

    Parameters: TypeAlias = list[torch.Tensor] | list[tuple[str, torch.Tensor]]
    """Tensors, or tensors with their names, as ``torch.optim`` takes both."""


@dataclass(frozen=True)
class Rule(ABC):
    """How parameters are updated from gradients. Abstract: use ``SGD``, ``Momentum``, ``Adam``, or wrap one.

    A rule holds numbers only. What it remembers between updates (momentum, moments, a count) lives in the optimizer
    that it makes, so that many ranks can share one rule and a checkpoint holds it. A rule of your own needs
    ``optimizer`` alone; one that wraps others also says so in ``inside``, and one of which a number's update depends
    on more than its own gradient is not ``elementwise``.
    """

    @abstractmethod
    def optimizer(self, parameters: Parameters) -> torch.optim.Optimizer:
        """An optimizer for ``parameters``, the part of the model that a rank updates.

        They are one 1-d tensor of everything, or, for a rule that is ``per_tensor``, pairs of a name such as
        ``"3.weight"`` (the number of the block, the module's own name) and a tensor in its own shape.
        """

    def step(self, optimizer: torch.optim.Optimizer, staleness: int = 0, since: torch.Tensor | None = None) -> None:
        """Apply one update with the gradients in ``.grad``, which stay as they are.

        ``staleness`` [updates]: how many were applied since the gradient's parameters were read. ``since``: those
        parameters, as one 1-d tensor laid out like the optimizer's, where ``needs_past`` asks for them.
        """
        optimizer.step()

    def check(self, names: Sequence[str]) -> None:
        """Raise ValueError when this cannot be the rule of a model with parameters of these names."""
        for rule in self.inside:
            rule.check(names)

    def loss_scale(self, optimizer: torch.optim.Optimizer | None = None) -> float:
        """By what the loss is to be multiplied before the next backward pass; None: before the first update."""
        return prod(rule.loss_scale(optimizer) for rule in self.inside)

    @property
    def inside(self) -> tuple[Rule, ...]:
        """The rules that this one wraps."""
        return ()

    @property
    def state(self) -> int:
        """How many numbers it remembers per parameter, as Adam its two moments; of alternatives, the most."""
        return max((rule.state for rule in self.inside), default=0)

    @property
    def elementwise(self) -> bool:
        """Whether every number follows its own gradient alone, so that any piece may be updated by itself."""
        return all(rule.elementwise for rule in self.inside)

    @property
    def per_tensor(self) -> bool:
        """Whether ``optimizer`` wants tensors one by one, with their names, and not one vector of them all."""
        return any(rule.per_tensor for rule in self.inside)

    @property
    def needs_past(self) -> bool:
        """Whether ``step`` wants ``since``."""
        return any(rule.needs_past for rule in self.inside)


@dataclass(frozen=True)
class LayerWise(Rule):
    """A rule that measures each tensor by its own norm. Abstract: use ``LARS`` or ``LAMB``.

    A tensor that is cut over ranks cannot be updated in parts.
    """

    @property
    def elementwise(self) -> bool:
        """See ``Rule.elementwise``."""
        return False

    @property
    def per_tensor(self) -> bool:
        """See ``Rule.per_tensor``."""
        return True


def nested(rule: Rule) -> Iterator[Rule]:
    """A rule and all that it wraps, from the outside in.

    >>> from simulator.rules import SGD, StalenessAware
    >>> [type(rule).__name__ for rule in nested(StalenessAware(SGD(0.1)))]
    ['StalenessAware', 'SGD']
    """
    yield rule
    for part in rule.inside:
        yield from nested(part)


def require_lr(rule: Rule, lr: float) -> None:
    """Raise ValueError unless the learning rate is a positive number."""
    checks.number("lr", lr, above=0, of=type(rule).__name__)


def require_fraction(rule: Rule, name: str, value: float) -> None:
    """Raise ValueError unless ``0 <= value < 1``."""
    checks.share_kept(name, value, of=type(rule).__name__)


def require_betas(rule: Rule, betas: object) -> tuple[float, float]:
    """The two numbers as a tuple, which has a hash. Raises ValueError unless both are fractions."""
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ValueError(f"{type(rule).__name__}: betas are two numbers; got betas={betas!r}; (0.9, 0.999) is usual")
    require_fraction(rule, "betas[0]", betas[0])
    require_fraction(rule, "betas[1]", betas[1])
    return betas[0], betas[1]


def require_not_negative(rule: Rule, name: str, value: float) -> None:
    """Raise ValueError unless ``value`` is finite and at least zero."""
    checks.number(name, value, least=0, of=type(rule).__name__)
