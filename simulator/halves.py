"""The backward pass of a block in two halves: first the gradient of its input, later that of its weights.

The weight half of every ``linear`` is put off: its backward keeps its input and its slope, and the product of the two
is left for later. That costs nothing, while asking autograd twice walks through the block twice. All other gradients
(of LayerNorms, convolutions, embeddings) come with the first half and are added with the second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Later = list[Callable[[], None]]
"""What is left to do for the weights."""


class PutOff(TorchFunctionMode):
    """While it is on, the weight half of every ``linear`` goes to ``later``."""

    def __init__(self, later: Later):
        super().__init__()
        self.later = later

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace ``torch.nn.functional.linear`` where its weight is a parameter."""
        kwargs = kwargs or {}
        if func is functional.linear and not kwargs and isinstance(args[1], torch.nn.Parameter):
            bias = args[2] if len(args) > 2 else None
            return _Linear.apply(args[0], args[1], bias, self.later)
        return func(*args, **kwargs)


class _Linear(torch.autograd.Function):
    """``x Wᵀ + b``, whose backward gives the gradient of x alone."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: Any, later: Later) -> torch.Tensor:
        """``[…, inputs]`` to ``[…, outputs]``."""
        ctx.save_for_backward(x)
        ctx.weight, ctx.bias, ctx.later = weight, bias, later
        return functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> Any:
        """The gradient of the input; those of weight and bias are put off."""
        (x,), (slope,) = ctx.saved_tensors, slopes
        ctx.later.append(lambda: _add(ctx.weight, ctx.bias, x, slope))
        return slope @ ctx.weight, None, None, None


@torch.no_grad()
def _add(weight: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor, slope: torch.Tensor) -> None:
    rows, slopes = x.reshape(-1, x.shape[-1]), slope.reshape(-1, slope.shape[-1])
    if weight.requires_grad and weight.grad is not None:
        weight.grad.add_(slopes.T @ rows)
    if bias is not None and bias.requires_grad and bias.grad is not None:
        bias.grad.add_(slopes.sum(0))


def second_half(later: Later) -> None:
    """Do what was left, and let go of it: what it holds leads back to the list, and tensors would stay for long."""
    for add in later:
        add()
    later.clear()


def first_half(
    output: torch.Tensor,
    slope: torch.Tensor,
    entering: torch.Tensor,
    parameters: list[torch.nn.Parameter],
    later: Later,
) -> torch.Tensor | None:
    """The gradient of what entered, None where it has none. What is left for the second half goes to ``later``."""
    others = [parameter for parameter in parameters if parameter.requires_grad]
    wanted = [entering, *others] if entering.requires_grad else others
    if not output.requires_grad or not wanted:
        return None
    found = torch.autograd.grad(output, wanted, slope, allow_unused=True)
    slopes = found[1:] if entering.requires_grad else found

    def add() -> None:
        for parameter, gradient in zip(others, slopes, strict=True):
            if gradient is not None and parameter.grad is not None:
                parameter.grad.add_(gradient)

    later.append(add)
    return found[0] if entering.requires_grad else None
