"""The operations of torch modules, written down while they run: what is multiplied, and what else is touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..operations import MatMul, Stream

ATEN = torch.ops.aten
PRODUCTS = {ATEN.mm: (0, 1), ATEN.addmm: (1, 2), ATEN.bmm: (0, 1), ATEN.baddbmm: (1, 2)}
"""Where the two matrices stand among the arguments."""
FREE = {ATEN.empty, ATEN.detach, ATEN._unsafe_view, ATEN.lift_fresh, ATEN.empty_like, ATEN.empty_strided}
"""What touches no memory."""
TABLES = {ATEN.embedding, ATEN._embedding_bag}
"""What reads some rows of a table, their numbers being its second argument."""
ROWS = {ATEN.index, ATEN.index_select, ATEN.gather}
"""What reads no more of its first argument than it gives."""


class Recorder(TorchDispatchMode):
    """Writes down every operation as a MatMul or a Stream, for ``samples`` samples together."""

    def __init__(self, samples: int, frozen: set[int]):
        super().__init__()
        self.samples, self.frozen = samples, frozen
        self.learned: list[MatMul] = []
        self.ops: list[MatMul | Stream] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation, and note what it is."""
        out = func(*args, **(kwargs or {}))
        kind = func.overloadpacket
        if kind in PRODUCTS:
            left, right = (args[at] for at in PRODUCTS[kind])
            self._multiply(self._product(left, right), right)
        elif kind is ATEN.convolution:
            self._multiply(self._convolution(args, out), args[1])
        elif not func.is_view and kind not in FREE:
            touched = _read(kind, args, out) + sum(tensor.nbytes for tensor in tensors((args[1:], kwargs, out)))
            self.ops.append(Stream(touched / self.samples))
        return out

    def _multiply(self, product: MatMul, weight: torch.Tensor) -> None:
        self.ops.append(product)
        if product.samples == "m" and weight.untyped_storage()._cdata not in self.frozen:
            self.learned.append(product)

    def _product(self, left: torch.Tensor, right: torch.Tensor) -> MatMul:
        count = left.shape[0] if left.dim() == 3 else 1
        rows, inner, columns = left.shape[-2], left.shape[-1], right.shape[-1]
        if left.dim() == 3:
            return MatMul(rows, columns, inner, count / self.samples, samples="count")
        return MatMul(rows / self.samples, columns, inner)

    def _convolution(self, args: Any, out: torch.Tensor) -> MatMul:
        weight, groups = args[1], args[8]
        transposed = args[6]
        places = (args[0] if transposed else out)[:, 0].numel() / self.samples
        if transposed:
            return MatMul(places, prod(weight.shape[1:]), weight.shape[0] / groups, groups)
        return MatMul(places, weight.shape[0] / groups, prod(weight.shape[1:]), groups)


def _read(kind: Any, args: Any, out: Any) -> int:
    """The bytes that an operation reads of its first argument: all, but where it looks something up."""
    if kind in TABLES:
        table, places = args[:2]
        return int(places.numel() * table.shape[-1] * table.element_size())
    return sum(tensor.nbytes for tensor in tensors(out if kind in ROWS else args[:1]))


@contextmanager
def kept(module: nn.Module) -> Iterator[dict[int, int]]:
    """The bytes that autograd keeps for the backward pass, by storage; parameters do not count."""
    found: dict[int, int] = {}
    alive = []
    learned = {parameter.untyped_storage()._cdata for parameter in module.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in learned:
            alive.append(storage)  # so that no other gets its number
            found[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """All tensors of what a module takes or gives."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(tuple(value.values()))
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from tensors(one)
