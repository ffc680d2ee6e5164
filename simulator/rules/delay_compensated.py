"""Old gradients moved to where the parameters are now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .around import Around
from .base import require_not_negative
from .lending import gradients, parameters_of
from .scaled import require_unscaled

if TYPE_CHECKING:
    import torch



@dataclass(frozen=True)
class DelayCompensated(Around):
    """Any rule, fed with a first-order guess of the gradient at today's parameters (DC-ASGD).

    A gradient g taken at x_old becomes ``g + strength · H (x_now − x_old)``, where the Hessian H is guessed as
    diag(g²). ``strength`` has to be tuned, like a learning rate; 0 compensates nothing.

    ``curvature(gradient, delta)`` replaces the guess: 1-d tensors as long as the parameters that a rank updates,
    to ``H · delta`` as long. With the true Hessian of a quadratic and strength 1 the result is sequential SGD.

    Source: Zheng et al. 2017, arXiv:1609.08326.

        >>> from simulator.rules import SGD
        >>> DelayCompensated(SGD(0.1), strength=0.5).needs_past
        True
    """

    strength: float = 1.0
    curvature: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative(self, "strength", self.strength)
        require_unscaled(self, self.rule)

    def step(self, optimizer: torch.optim.Optimizer, staleness: int = 0, since: torch.Tensor | None = None) -> None:
        """See ``Rule.step``. Raises ValueError when the past is needed and missing, or of another size."""
        if since is None:
            if staleness:
                raise ValueError(
                    f"DelayCompensated moves a gradient from the parameters it was taken at; got staleness={staleness}"
                    f" without them; give since=…, or take a rule that needs no past, such as {self.rule}"
                )
            return self.rule.step(optimizer, staleness)
        parameters = parameters_of(optimizer)
        with gradients(parameters, self._compensated(parameters, since)):
            self.rule.step(optimizer, staleness, since)
        return None

    @property
    def needs_past(self) -> bool:
        """See ``Rule.needs_past``."""
        return True

    def _compensated(self, parameters: list[torch.Tensor], since: torch.Tensor) -> list[torch.Tensor]:
        import torch

        sizes = [p.numel() for p in parameters]
        if since.numel() != sum(sizes):
            raise ValueError(
                f"since holds the parameters that are updated, {sum(sizes)} of them; got {since.numel()};"
                " copy the very part that this rank updates"
            )
        with torch.no_grad():
            now = torch.cat([p.reshape(-1) for p in parameters])
            gradient = torch.cat([p.grad.reshape(-1) for p in parameters])  # type: ignore[union-attr]
            delta = now - since.reshape(-1)
            moved = gradient * gradient * delta if self.curvature is None else self.curvature(gradient, delta)
            parts = torch.split(gradient + self.strength * moved, sizes)
        return [part.view_as(p) for part, p in zip(parts, parameters, strict=True)]
