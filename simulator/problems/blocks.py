"""Lists of modules: what they must be, the names of their parameters, and how to fill these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


def named_parameters(blocks: Sequence[torch.nn.Module]) -> list[tuple[str, torch.nn.Parameter]]:
    """The parameters of all blocks in order, named ``"<block>.<name in the module>"``."""
    return [(f"{i}.{name}", tensor) for i, block in enumerate(blocks) for name, tensor in block.named_parameters()]


def checked(blocks: Any) -> list[torch.nn.Module]:
    """The blocks as a list. Raises ValueError when there is none, one is no Module, or two share a parameter."""
    if isinstance(blocks, (torch.nn.Sequential, torch.nn.ModuleList)):
        blocks = list(blocks)
    if not isinstance(blocks, (list, tuple)):
        raise ValueError(f"blocks are a list of torch.nn.Module, or a function that returns one; got {kinds(blocks)}")
    if not blocks:
        raise ValueError("a problem has at least one block; got none; give for instance [torch.nn.Linear(8, 1)]")
    owner: dict[int, int] = {}
    for number, block in enumerate(blocks):
        if not isinstance(block, torch.nn.Module):
            raise ValueError(f"every block is a torch.nn.Module; block {number} is {kinds(block)}")
        for name, tensor in block.named_parameters():
            if owner.setdefault(id(tensor), number) != number:
                raise ValueError(
                    f"blocks share no parameters, for they may live on different ranks; {name} of block {number}"
                    f" is also in block {owner[id(tensor)]}; copy it, or make one block of the two"
                )
    return list(blocks)


def fill(blocks: Sequence[torch.nn.Module], arrays: Mapping[str, Any]) -> None:
    """Copy arrays into the parameters of these names."""
    own = dict(named_parameters(blocks))
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
