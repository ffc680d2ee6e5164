"""What a rank hands to its rule: its parameters as one vector, or one by one with their names."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

import torch

from .problems.blocks import named_parameters
from .values import Chunk, Value

if TYPE_CHECKING:
    from .layout import Layout
    from .rules import Rule


def optimizer_of(rule: Rule, flat: Layout, params: Value, region: torch.Tensor) -> torch.optim.Optimizer:
    """The rule's optimizer for ``params``, which lie in ``region``; they and their gradients stay in the flat vectors.

    Raises ValueError where the rule needs whole tensors and the rank has pieces.
    """
    require_whole(rule, flat, params)
    if not rule.per_tensor or not region.numel():
        leaf = _leaf(region, flat.gradients(region))
        return rule.optimizer([(f"{flat.blocks[0]}.", leaf)] if rule.per_tensor else [leaf])
    tensors, model = flat.tensors(region), named_parameters(flat.every)
    names, ends = [name for name, _ in model], list(accumulate(parameter.numel() for _, parameter in model))
    found = [names[bisect_right(ends, _origin(flat, int(one.storage_offset())))] for one in tensors]
    leaves = [_leaf(one, flat.gradients(one).view_as(one)) for one in tensors]
    return rule.optimizer(list(zip(found, leaves, strict=True)))


def require_whole(rule: Rule, flat: Layout, params: Value) -> None:
    """Raise ValueError where a rule that is not elementwise would see but pieces of tensors."""
    cut = flat.me.cut
    if not rule.elementwise and max(_parts(params), cut.tensor[1], cut.expert[1]) > 1:
        raise ValueError(
            f"{rule} needs norms of whole tensors or vectors; rank {flat.me.rank} updates {params}, of which it has"
            " pieces; take an elementwise rule such as SGD, Momentum or Adam, or a strategy that keeps tensors whole"
        )


def _parts(value: Value) -> int:
    return value.of * _parts(value.value) if isinstance(value, Chunk) else 1


def _leaf(numbers: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    leaf = torch.nn.Parameter(numbers)
    leaf.grad = gradient
    return leaf


def _origin(flat: Layout, element: int) -> int:
    """Where an element of a rank's parameters lies among those of the model, so that a piece has its tensor's name."""
    block = max((b for b in flat.blocks if flat.starts[b] <= element), key=lambda b: (flat.starts[b], b))
    return int(flat.origins[block][element - flat.starts[block]])
