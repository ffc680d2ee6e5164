"""Blocks in parts: how a module says what of it ranks can share.

A module that several ranks run together has a method ``parts(cut)``, which gives a list of ``PartModule``: run one
after another, they do what its ``forward`` does. Those with units hold this rank's share of them (``bounds`` says
which). Its flags say what ranks must tell each other; see ``simulator.model.Part``.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from ..cutting import Cut
from ..values import bounds


class PartModule(nn.Module):
    """A part of a block. Abstract: give it a ``forward(x, added)``; ``added`` is what entered the part ``adds``.

    ``units``: (how many are split over ranks, parameters of each), for all kinds of units that it has. It then has no
    other parameters. The flags are those of ``simulator.model.Part``.
    """

    shares: ClassVar[bool] = False
    sums: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    causal: bool = False
    routes: ClassVar[bool] = False
    experts: ClassVar[bool] = False
    adds: int | None = None
    units: tuple[tuple[int, int], ...] = ()


class Pointwise(PartModule):
    """A module without units that treats every token for itself, such as a LayerNorm or a ReLU."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """``[…, features]`` to ``[…, features]``."""
        out: torch.Tensor = self.module(x)
        return out


class Add(PartModule):
    """A residual connection: adds what entered the part of that number."""

    def __init__(self, adds: int):
        super().__init__()
        self.adds = adds

    def forward(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """The sum of two tensors of one size."""
        assert added is not None
        return added + x.view_as(added)


class Rows(PartModule):
    """A Linear split by its inputs: each rank multiplies its columns of the weight; the outputs add up.

    The bias is split by outputs, so that no rank adds it twice.
    """

    shares: ClassVar[bool] = True
    sums: ClassVar[bool] = True

    def __init__(self, linear: nn.Linear, cut: Cut):
        super().__init__()
        self.inputs, self.outputs = bounds(linear.in_features, *cut.tensor), bounds(linear.out_features, *cut.tensor)
        self.width = linear.out_features
        self.weight = share(linear.weight[:, slice(*self.inputs)], linear.weight)
        self.units = ((linear.in_features, linear.out_features),)
        self.bias = None
        if linear.bias is not None:
            self.bias = share(linear.bias[slice(*self.outputs)], linear.bias)
            self.units = (*self.units, (linear.out_features, 1))

    def forward(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """``[…, inputs]``, or this rank's columns of them, to its share of the sum, ``[…, outputs]``."""
        mine = x if x.shape[-1] == self.weight.shape[1] else x[..., slice(*self.inputs)]
        return padded_bias(mine @ self.weight.T, self.bias, self.outputs)


class Columns(PartModule):
    """A Linear split by its outputs; a rank's sum has zeros where the outputs of others stand."""

    shares: ClassVar[bool] = True
    sums: ClassVar[bool] = True

    def __init__(self, linear: nn.Linear, cut: Cut):
        super().__init__()
        self.width, self.outputs = linear.out_features, bounds(linear.out_features, *cut.tensor)
        self.weight = share(linear.weight[slice(*self.outputs)], linear.weight)
        self.bias = share(linear.bias[slice(*self.outputs)], linear.bias)
        self.units = ((linear.out_features, linear.in_features + 1),)

    def forward(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """``[…, inputs]`` to ``[…, outputs]``, zero outside this rank's."""
        out = functional.linear(x, self.weight, self.bias)
        return functional.pad(out, (self.outputs[0], self.width - self.outputs[1]))


def padded_bias(x: torch.Tensor, bias: torch.Tensor | None, outputs: tuple[int, int]) -> torch.Tensor:
    """Add the biases of some outputs; the others are added by other ranks."""
    return x if bias is None else x + functional.pad(bias, (outputs[0], x.shape[-1] - outputs[1]))


def share(part: torch.Tensor, of: torch.Tensor) -> nn.Parameter:
    """A parameter of its own with a part of another's numbers; it learns if that does."""
    return nn.Parameter(part.detach().clone().contiguous(), requires_grad=of.requires_grad)


def parts_of(block: nn.Module, cut: Cut) -> list[PartModule]:
    """The parts of a block. Raises ValueError when it has none.

    A module says so by a method ``parts(cut)``. A Linear, and a Sequential of a Linear followed by modules without
    parameters (taken to treat every token for itself), need none.
    """
    if callable(own := getattr(block, "parts", None)):
        parts: list[PartModule] = own(cut)
        return parts
    modules = list(block) if isinstance(block, nn.Sequential) else [block]
    if isinstance(modules[0], nn.Linear) and not any(list(module.parameters()) for module in modules[1:]):
        return [Rows(modules[0], cut), *(Pointwise(module) for module in modules[1:])]
    raise ValueError(
        f"ranks run a block together in parts; a {type(block).__name__} has none: give it a method parts(cut), as the"
        " tiny GPT's modules have"
    )


def in_parts(block: nn.Module) -> bool:
    """Whether ``parts_of`` knows the parts of a block."""
    try:
        parts_of(block, Cut())
    except ValueError:
        return False
    return True
