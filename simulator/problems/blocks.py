"""Lists of modules: what they must be, the names of their parameters, and how to fill these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..values import Params, Tied

Named = list[tuple[str, torch.nn.Parameter]]
"""Parameters with their names."""


def named_parameters(blocks: Sequence[torch.nn.Module]) -> Named:
    """The parameters of all blocks in order, named ``"<block>.<name in the module>"``.

    One that several blocks use belongs to the first of them and bears that name alone.
    """
    return [pair for mine in own_parameters(blocks) for pair in mine]


def own_parameters(blocks: Sequence[torch.nn.Module]) -> list[Named]:
    """For each block the parameters that no block before it uses."""
    seen: set[int] = set()
    found: list[Named] = []
    for number, block in enumerate(blocks):
        mine = [(name, tensor) for name, tensor in block.named_parameters() if id(tensor) not in seen]
        seen |= {id(tensor) for _, tensor in mine}
        found.append([(f"{number}.{name}", tensor) for name, tensor in mine])
    return found


def ties(blocks: Sequence[torch.nn.Module]) -> list[dict[Tied, torch.nn.Parameter]]:
    """For each block the parameters of earlier ones that it uses too."""
    places: dict[int, Tied] = {}
    for number, mine in enumerate(own_parameters(blocks)):
        start = 0
        for _, tensor in mine:
            places[id(tensor)] = Tied(Params(number), start, start + tensor.numel())
            start += tensor.numel()
    used = [[(places[id(tensor)], tensor) for tensor in block.parameters()] for block in blocks]
    return [{tie: tensor for tie, tensor in mine if tie.block != number} for number, mine in enumerate(used)]


def named_buffers(block: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """The floating-point buffers of a block that its ``state_dict`` holds, such as the running means of a BatchNorm."""
    saved = block.state_dict().keys()
    return [(name, buffer) for name, buffer in block.named_buffers() if name in saved and buffer.is_floating_point()]


def checked(blocks: Any) -> list[torch.nn.Module]:
    """The blocks as a list. Raises ValueError when there is none, or one is no Module."""
    if isinstance(blocks, (torch.nn.Sequential, torch.nn.ModuleList)):
        blocks = list(blocks)
    if not isinstance(blocks, (list, tuple)):
        raise ValueError(f"blocks are a list of torch.nn.Module, or a function that returns one; got {kinds(blocks)}")
    if not blocks:
        raise ValueError("a problem has at least one block; got none; give for instance [torch.nn.Linear(8, 1)]")
    for number, block in enumerate(blocks):
        if not isinstance(block, torch.nn.Module):
            raise ValueError(f"every block is a torch.nn.Module; block {number} is {kinds(block)}")
    return list(blocks)


def fill(blocks: Sequence[torch.nn.Module], arrays: Mapping[str, Any]) -> None:
    """Copy arrays into the parameters of these names, and into buffers where they are given."""
    kept = {f"{i}.{name}": tensor for i, block in enumerate(blocks) for name, tensor in named_buffers(block)}
    own: dict[str, torch.Tensor] = {name: tensor for name, tensor in kept.items() if name in arrays}
    own |= dict(named_parameters(blocks))
    if missing_or_extra := own.keys() ^ arrays.keys():
        missing, extra = sorted(missing_or_extra & own.keys()), sorted(missing_or_extra - own.keys())
        raise ValueError(
            f"parameters have the names of the blocks; missing: {', '.join(missing) or 'none'};"
            f" unexpected: {', '.join(extra) or 'none'}; parameters(seed) shows all names"
        )
    for name, tensor in own.items():
        given = torch.as_tensor(arrays[name])
        if given.shape != tensor.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; got {tuple(given.shape)}")
        with torch.no_grad():
            tensor.copy_(given)


def kinds(value: object) -> str:
    """What something is, for an error: its type, and the types inside a tuple or list."""
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of ({', '.join(type(x).__name__ for x in value)})"
    return f"a {type(value).__name__}"
