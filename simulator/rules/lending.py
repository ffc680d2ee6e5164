"""What rules that wrap others change of an optimizer for the length of one update, and give back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def parameters_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The parameters with a gradient, in the order in which they were given to the rule.

    An optimizer of several groups says in ``"positions"`` where the parameters of a group stood; others keep the order.
    """
    found: list[tuple[int, torch.Tensor]] = []
    for group in optimizer.param_groups:
        parameters = group["params"]
        found += zip(group.get("positions", range(len(found), len(found) + len(parameters))), parameters, strict=True)
    found.sort(key=lambda pair: pair[0])
    return [parameter for _, parameter in found if parameter.grad is not None]


@contextmanager
def gradients(parameters: Sequence[torch.Tensor], instead: Sequence[torch.Tensor]) -> Iterator[None]:
    """Other gradients for these parameters; their own belong to the caller and come back."""
    own = [parameter.grad for parameter in parameters]
    try:
        _set(parameters, instead)
        yield
    finally:
        _set(parameters, own)


@contextmanager
def rates(optimizer: torch.optim.Optimizer, rate: Callable[[float], float]) -> Iterator[None]:
    """Other learning rates, made of the full ones; the next update starts from the full ones again."""
    full = [group["lr"] for group in optimizer.param_groups]
    try:
        for group in optimizer.param_groups:
            group["lr"] = rate(group["lr"])
        yield
    finally:
        for group, lr in zip(optimizer.param_groups, full, strict=True):
            group["lr"] = lr


def _set(parameters: Sequence[torch.Tensor], found: Sequence[torch.Tensor | None]) -> None:
    for parameter, gradient in zip(parameters, found, strict=True):
        parameter.grad = gradient
