"""The blocks of a problem as plain layers, which any framework can build; weights in PyTorch's own layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from simulator.problem import Problem


@dataclass(frozen=True)
class Dense:
    """``x Wᵀ + b`` over the last dimension; ``weight`` and ``bias`` are the parameters' names."""

    units: int
    weight: str
    bias: str | None


@dataclass(frozen=True)
class Convolution:
    """Two-dimensional, channels before pixels; ``padding`` zeros on both sides of each dimension."""

    filters: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    weight: str
    bias: str | None


@dataclass(frozen=True)
class Activation:
    """An elementwise function: "relu" or "tanh"."""

    function: str


@dataclass(frozen=True)
class Flat:
    """All dimensions of a sample become one."""


Plain = Dense | Convolution | Activation | Flat

KNOWN = "Linear, Conv2d, ReLU, Tanh, Flatten and Sequential"
LOSSES: dict[Callable[..., object], str] = {
    nn.functional.cross_entropy: "cross_entropy",
    nn.functional.mse_loss: "mse_loss",
}
"""The losses that other frameworks know too."""


def layers(blocks: Sequence[nn.Module]) -> list[Plain]:
    """All blocks, one layer after another. ValueError for a module that is none of the known ones.

    >>> from torch import nn
    >>> layers([nn.Sequential(nn.Linear(4, 3), nn.ReLU())])
    [Dense(units=3, weight='0.0.weight', bias='0.0.bias'), Activation(function='relu')]
    """
    return [layer for number, block in enumerate(blocks) for layer in _translated(str(number), block)]


def loss_of(problem: Problem) -> str:
    """The name of the problem's loss. ValueError when only PyTorch can compute it.

    >>> import simulator as sim
    >>> loss_of(sim.problem("digits-mlp"))
    'cross_entropy'
    """
    for function, name in LOSSES.items():
        if problem.loss is function:
            return name
    raise ValueError(
        f"other frameworks compute the losses {' and '.join(LOSSES.values())} of torch.nn.functional; the loss of"
        f" {problem.name} is {problem.loss!r}"
    )


def _translated(name: str, module: nn.Module) -> Iterator[Plain]:
    kind = type(module)  # and no subclass: it may compute anything
    if kind is nn.Sequential:
        for inner, child in module.named_children():
            yield from _translated(f"{name}.{inner}", child)
    elif isinstance(module, nn.Linear) and kind is nn.Linear:
        yield Dense(module.out_features, *_names(name, module))
    elif isinstance(module, nn.Conv2d) and kind is nn.Conv2d:
        yield _convolution(name, module)
    elif kind in (nn.ReLU, nn.Tanh):
        yield Activation(kind.__name__.lower())
    elif isinstance(module, nn.Flatten) and kind is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
        yield Flat()
    else:
        raise ValueError(f"blocks are translated when they are made of {KNOWN}; block {name} is {module}")


def _convolution(name: str, module: nn.Conv2d) -> Convolution:
    plain = module.groups == 1 and module.dilation == (1, 1) and module.padding_mode == "zeros"
    if not plain or isinstance(module.padding, str):
        raise ValueError(
            "a Conv2d is translated when its padding is a number of zeros and it has neither groups nor dilation;"
            f" block {name} is {module}"
        )
    (kh, kw), (sh, sw), (ph, pw) = module.kernel_size, module.stride, module.padding
    return Convolution(module.out_channels, (kh, kw), (sh, sw), (ph, pw), *_names(name, module))


def _names(name: str, module: nn.Linear | nn.Conv2d) -> tuple[str, str | None]:
    if not all(parameter.requires_grad for parameter in module.parameters()):
        raise ValueError(f"blocks are translated when all their parameters learn; those of block {name} are frozen")
    return f"{name}.weight", None if module.bias is None else f"{name}.bias"
