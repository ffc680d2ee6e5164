"""The optimizers behind ``LARS`` and ``LAMB``: each tensor's step is measured against the tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .base import Parameters


class Tensorwise(torch.optim.Optimizer):
    """One update is one move of every tensor by itself. Abstract: give it a ``move``."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply one update to every parameter with a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.move(parameter, parameter.grad, group)

    def move(self, weight: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        """Change a tensor by its gradient, with the numbers of its group."""
        raise NotImplementedError(f"{type(self).__name__} moves tensors: give it a method move")


class Lars(Tensorwise):
    """See ``simulator.rules.LARS``."""

    def __init__(self, parameters: Parameters, lr: float, momentum: float, trust: float, weight_decay: float):
        super().__init__(parameters, dict(lr=lr, momentum=momentum, trust=trust, weight_decay=weight_decay))

    def move(self, weight: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        """See ``Tensorwise.move``."""
        state, decay = self.state[weight], group["weight_decay"]
        length, slope = torch.linalg.vector_norm(weight), torch.linalg.vector_norm(gradient)
        local = _unless_zero(group["trust"] * length / (slope + decay * length), length, slope)
        change = local * gradient.add(weight, alpha=decay)
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        velocity = state["momentum_buffer"].mul_(group["momentum"]).add_(change)
        weight.sub_(velocity, alpha=group["lr"])


class Lamb(Tensorwise):
    """See ``simulator.rules.LAMB``."""

    def __init__(
        self, parameters: Parameters, lr: float, betas: tuple[float, float], eps: float, weight_decay: float
    ):
        super().__init__(parameters, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    def move(self, weight: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        """See ``Tensorwise.move``."""
        change = self._direction(weight, gradient, group).add(weight, alpha=group["weight_decay"])
        length, slope = torch.linalg.vector_norm(weight), torch.linalg.vector_norm(change)
        weight.sub_(_unless_zero(length / slope, length, slope) * change, alpha=group["lr"])

    def _direction(self, weight: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
        """What Adam would step along."""
        state, (first, second) = self.state[weight], group["betas"]
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(weight), exp_avg_sq=torch.zeros_like(weight))
        state["step"] += 1
        mean = state["exp_avg"].mul_(first).add_(gradient, alpha=1 - first) / (1 - first ** state["step"])
        square = state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        return mean / ((square / (1 - second ** state["step"])).sqrt_() + group["eps"])


def _unless_zero(ratio: torch.Tensor, *norms: torch.Tensor) -> torch.Tensor:
    """The ratio of norms; 1 where one of them is zero, since a ratio then says nothing."""
    zero = torch.stack(norms).eq(0).any()
    return torch.where(zero, torch.ones_like(ratio), ratio)
