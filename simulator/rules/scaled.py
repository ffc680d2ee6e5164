"""Loss scaling, for gradients in a type that rounds small numbers to zero."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from .. import checks
from .around import Around
from .base import Rule, nested
from .lending import gradients, parameters_of

if TYPE_CHECKING:
    import torch

    from .base import Parameters


@dataclass(frozen=True)
class LossScale:
    """A scale that looks for the largest one without overflow.

    After ``interval`` updates in a row with finite gradients it is multiplied by ``growth``; after an overflow by
    ``backoff``. Powers of two change no digit of a number.

    Source: Micikevicius et al. 2018, arXiv:1710.03740.

        >>> LossScale(interval=2).after(1024.0, clean=1, finite=True)
        (2048.0, 0)
        >>> LossScale().after(1024.0, clean=7, finite=False)
        (512.0, 0)
    """

    initial: float = 2.0**16
    growth: float = 2.0
    backoff: float = 0.5
    interval: int = 2000

    def __post_init__(self) -> None:
        checks.number("initial", self.initial, above=0, of="LossScale")
        checks.number("growth", self.growth, least=1, of="LossScale")
        checks.whole("interval", self.interval, least=1, of="LossScale")
        if not 0 < checks.number("backoff", self.backoff, of="LossScale") < 1:
            raise ValueError(f"LossScale: an overflow lowers the scale, 0 < backoff < 1; got backoff={self.backoff}")

    def after(self, scale: float, clean: int, finite: bool) -> tuple[float, int]:
        """The next scale, and how many updates in a row were ``clean``, after one more."""
        if not finite:
            return scale * self.backoff, 0
        if clean + 1 < self.interval:
            return scale, clean + 1
        grown = scale * self.growth
        return grown if isfinite(grown) else scale, 0


@dataclass(frozen=True)
class FixedScale:
    """A scale that stays.

    >>> FixedScale(128.0).after(128.0, clean=7, finite=False)
    (128.0, 0)
    """

    initial: float

    def __post_init__(self) -> None:
        checks.number("initial", self.initial, above=0, of="FixedScale")

    def after(self, scale: float, clean: int, finite: bool) -> tuple[float, int]:
        """The same scale."""
        return scale, clean + 1 if finite else 0


@dataclass(frozen=True)
class Scaled(Around):
    """Any rule, for gradients of a loss that was multiplied by a scale: it divides them, or skips the update.

    With g the gradient of ``scale · loss``, the rule is given ``g / scale``. Where a number of g is not finite
    nothing moves, the rule remembers nothing of it, and the scale adapts. Scale, clean updates in a row and skipped
    updates are in the optimizer's groups, as "loss_scale", "clean" and "skipped".

    Ranks skip together where all update with the same gradient: an average of gradients is infinite or NaN
    everywhere if it was so anywhere. Ranks that update *different* pieces (shards, pipeline stages, several servers)
    each see their own alone: let them add the sum over ranks of ``alarm(gradient)`` to their gradients first, or
    take a ``FixedScale`` and bear that one piece skips alone.

    Source: Micikevicius et al. 2018, arXiv:1710.03740.

        >>> from simulator.rules import SGD
        >>> Scaled(SGD(0.1)).loss_scale()
        65536.0
    """

    scale: LossScale | FixedScale = LossScale()

    def __post_init__(self) -> None:
        super().__post_init__()
        require_unscaled(self, self.rule)
        checks.kind("scale", self.scale, (LossScale, FixedScale), "LossScale() or FixedScale(1024.0)")

    def optimizer(self, parameters: Parameters) -> torch.optim.Optimizer:
        """See ``Rule.optimizer``."""
        optimizer = super().optimizer(parameters)
        for group in optimizer.param_groups:
            group.update(loss_scale=self.scale.initial, clean=0, skipped=0)
        return optimizer

    def step(self, optimizer: torch.optim.Optimizer, staleness: int = 0, since: torch.Tensor | None = None) -> None:
        """See ``Rule.step``."""
        parameters = parameters_of(optimizer)
        found = [parameter.grad for parameter in parameters if parameter.grad is not None]
        scale, clean = self.loss_scale(optimizer), optimizer.param_groups[0]["clean"]
        finite = all(bool(gradient.isfinite().all()) for gradient in found)
        if finite:
            with gradients(parameters, [gradient / scale for gradient in found]):
                self.rule.step(optimizer, staleness, since)
        scale, clean = self.scale.after(scale, clean, finite)
        for group in optimizer.param_groups:
            group.update(loss_scale=scale, clean=clean, skipped=group["skipped"] + (not finite))

    def loss_scale(self, optimizer: torch.optim.Optimizer | None = None) -> float:
        """See ``Rule.loss_scale``."""
        return self.scale.initial if optimizer is None else float(optimizer.param_groups[0]["loss_scale"])


def alarm(gradient: torch.Tensor) -> torch.Tensor:
    """One number to add up over ranks: 0 where all of a gradient is finite, else NaN.

    >>> import torch
    >>> alarm(torch.tensor([1.0, 2.0])), alarm(torch.tensor([1.0, float("inf")]))
    (tensor([0.]), tensor([nan]))
    """
    return (gradient.reshape(-1) * 0).sum(0, keepdim=True)


def scaled(rule: Rule | None) -> bool:
    """Whether a rule wants its gradients from a loss that was multiplied."""
    return rule is not None and any(isinstance(part, Scaled) for part in nested(rule))


def adaptive(rule: Rule | None) -> bool:
    """Whether a rule's scale changes as the training goes on.

    >>> from simulator.rules import SGD
    >>> adaptive(Scaled(SGD(0.1))), adaptive(Scaled(SGD(0.1), FixedScale(8.0)))
    (True, False)
    """
    parts = nested(rule) if rule is not None else ()
    return any(isinstance(part, Scaled) and isinstance(part.scale, LossScale) for part in parts)


def require_plain_loss(rule: Rule | None, who: str, remedy: str = "leave the Scaled out") -> None:
    """Raise ValueError when a rule wants a scaled loss and ``who`` counts on gradients of the loss itself."""
    if scaled(rule):
        raise ValueError(f"{who} works with gradients of the loss itself; got rule={rule}; {remedy}")


def require_unscaled(wrapper: Rule, *rules: Rule) -> None:
    """Raise ValueError when a rule stands under ``wrapper`` that must see the gradient before it does."""
    if any(isinstance(part, Scaled) for rule in rules for part in nested(rule)):
        name = type(wrapper).__name__
        raise ValueError(
            f"{name} works on gradients of the loss itself, so Scaled stands outside of it; got {name} around a Scaled;"
            f" write for instance Scaled({name}(…))"
        )
