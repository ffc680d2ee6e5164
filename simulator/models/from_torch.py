"""A torch module as operations, found by running it on the meta device: shapes alone, no numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from .. import checks
from ..model import Block, Model
from ..operations import MatMul, Operations, Stream, gradients
from ..problems.blocks import named_buffers, own_parameters, ties
from ..problems.inspection import applied
from .transformer import ADAM

ATEN = torch.ops.aten
DTYPES = {torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
PRODUCTS = {ATEN.mm: (0, 1), ATEN.addmm: (1, 2), ATEN.bmm: (0, 1), ATEN.baddbmm: (1, 2)}
"""Where the two matrices stand among the arguments."""
FREE = {ATEN.empty, ATEN.detach, ATEN._unsafe_view, ATEN.lift_fresh, ATEN.empty_like, ATEN.empty_strided}
"""What touches no memory."""


class Recorder(TorchDispatchMode):
    """Writes down every operation as a MatMul or a Stream, for ``samples`` samples together."""

    def __init__(self, samples: int):
        super().__init__()
        self.samples = samples
        self.ops: list[MatMul | Stream] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation, and note what it is."""
        out = func(*args, **(kwargs or {}))
        kind = func.overloadpacket
        if kind in PRODUCTS:
            left, right = (args[at] for at in PRODUCTS[kind])
            self.ops.append(self._product(left, right))
        elif kind is ATEN.convolution:
            self.ops.append(self._convolution(args, out))
        elif not func.is_view and kind not in FREE:
            touched = sum(tensor.nbytes for tensor in _tensors((args, kwargs, out)))
            self.ops.append(Stream(touched / self.samples))
        return out

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


def model_of(module: nn.Module, sample: torch.Tensor, name: str | None = None) -> Model:
    """See ``Model.from_torch``."""
    checks.kind("module", module, nn.Module, "a torch.nn.Module, such as torch.nn.Linear(8, 4)")
    checks.kind("sample", sample, torch.Tensor, "a tensor, samples along the first dimension")
    if not sample.dim() or not len(sample):
        raise ValueError(f"sample has samples along its first dimension, at least one; got shape {tuple(sample.shape)}")
    whole = _on_meta(module)
    modules = list(whole) if isinstance(whole, nn.Sequential) else [whole]
    dtype = _dtype(whole, sample)
    act, blocks = sample.to("meta"), list[Block]()
    for number, one in enumerate(modules):
        found, act = _block(number, one, act, dtype)
        blocks.append(found)
    for number, (own, tied) in enumerate(zip(own_parameters(modules), ties(modules))):
        shapes = tuple(tuple(parameter.shape) for _, parameter in own)
        blocks[number] = replace(blocks[number], parameters=sum(map(prod, shapes)), shapes=shapes, ties=tuple(tied))
    return Model(
        name=name or type(module).__name__,
        blocks=tuple(blocks),
        batch=len(sample),
        parameter_bytes=dtype.itemsize,
        update=Operations((Stream(ADAM, kernels=0),), DTYPES[dtype]),
    )


def _block(number: int, module: nn.Module, entering: torch.Tensor, dtype: torch.dtype) -> tuple[Block, torch.Tensor]:
    samples = len(entering)
    act = entering.detach().requires_grad_(entering.is_floating_point())
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), _kept(module) as kept, Recorder(samples) as recorder:
        out = applied(number, module.train(), act)
    ops = tuple(recorder.ops)
    products, streams = gradients(ops), tuple(op for op in ops if isinstance(op, Stream))
    learned = tuple(op.gradients()[1] for op in ops if isinstance(op, MatMul) and op.samples == "m")
    name = DTYPES[dtype]
    return (
        Block(
            forward=Operations(ops, name),
            backward=Operations((*streams, *products), name),
            input_bytes=entering.nbytes / samples,
            weight=Operations(learned, name),
            buffers=sum(buffer.numel() for _, buffer in named_buffers(module)),
            saved_bytes=max(sum(kept.values()), entering.nbytes) / samples,
        ),
        out.detach(),
    )


def _on_meta(module: nn.Module) -> nn.Module:
    """A copy without numbers; what is tied stays tied."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in module.parameters()}
    return deepcopy(module, memo | {id(buffer): buffer.to("meta") for buffer in module.buffers()})


@contextmanager
def _kept(module: nn.Module) -> Iterator[dict[int, int]]:
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


def _dtype(module: nn.Module, sample: torch.Tensor) -> torch.dtype:
    """Of the parameters, or of the sample where there are none."""
    found = next((p.dtype for p in module.parameters() if p.is_floating_point()), sample.dtype)
    if found not in DTYPES:
        raise ValueError(f"a module computes in one of {', '.join(map(str, DTYPES))}; got {found}")
    return found


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from _tensors(one)
