"""A torch module as operations, found by running it on the meta device: shapes alone, no numbers."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from .. import checks
from ..model import Block, Model
from ..operations import MatMul, Operations, Stream
from ..problems.blocks import named_buffers, own_parameters, ties
from .meta import called, check_samples, on_meta, shape_of
from .recording import Recorder, kept, tensors
from .transformer import ADAM

Sample = torch.Tensor | tuple[torch.Tensor, ...] | dict[str, torch.Tensor]
"""What a module is called with: one input, several in order, or by name."""
DTYPES = {torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


def model_of(module: nn.Module, sample: Sample, name: str | None = None, tokens: int | None = None) -> Model:
    """See ``Model.from_torch``."""
    checks.kind("module", module, nn.Module, "a torch.nn.Module, such as torch.nn.Linear(8, 4)")
    first = _checked(sample)
    if any(nn.parameter.is_lazy(one) for one in (*module.parameters(), *module.buffers())):
        raise ValueError(
            f"parameters have shapes; those of lazy layers have none yet; got {type(module).__name__}: call it once,"
            " module(sample), and its layers know theirs"
        )
    whole = on_meta(module)
    modules = list(whole) if isinstance(whole, nn.Sequential) else [whole]
    dtype = _dtype(whole, first)
    act: Any = sample
    blocks = list[Block]()
    for number, one in enumerate(modules):
        found, act = _block(number, one, act, len(first), dtype)
        blocks.append(_unlearned(found) if _all_frozen(modules[: number + 1]) else found)
    for number, (own, tied) in enumerate(zip(own_parameters(modules), ties(modules))):
        shapes = tuple(tuple(parameter.shape) for _, parameter in own if parameter.requires_grad)
        frozen = sum(parameter.numel() for _, parameter in own if not parameter.requires_grad)
        blocks[number] = replace(
            blocks[number],
            parameters=sum(map(prod, shapes)),
            shapes=shapes,
            ties=tuple(tied),
            buffers=blocks[number].buffers + frozen,
        )
    return Model(
        name=name or type(module).__name__,
        blocks=tuple(blocks),
        batch=len(first),
        parameter_bytes=dtype.itemsize,
        update=Operations((Stream(ADAM, kernels=0),), DTYPES[dtype]),
        tokens=tokens,
    )


def _checked(sample: Sample) -> torch.Tensor:
    """The first of the inputs; its first dimension is that of the samples."""
    given: Any = sample.values() if isinstance(sample, dict) else sample
    every = list(given) if isinstance(sample, (tuple, list, dict)) else [given]
    remedy = "a tensor, samples along the first dimension; or a tuple or a dict of tensors, as the module is called"
    if not every or not all(isinstance(one, torch.Tensor) for one in every):
        raise ValueError(f"sample is {remedy}; got {checks.shown(sample)}")
    first: torch.Tensor = every[0]
    if not first.dim() or not len(first):
        raise ValueError(f"sample has samples along its first dimension, at least one; got shape {tuple(first.shape)}")
    if first.dim() == 1 and first.is_floating_point():
        raise ValueError(
            f"sample has samples along its first dimension, and their numbers along others; got shape"
            f" {tuple(first.shape)}: one sample of them is sample.unsqueeze(0)"
        )
    return first


def _block(number: int, module: nn.Module, entering: Any, samples: int, dtype: torch.dtype) -> tuple[Block, Any]:
    acts = pytree.tree_map_only(torch.Tensor, shape_of, entering)
    frozen = {p.untyped_storage()._cdata for p in module.parameters() if not p.requires_grad}
    recorder = Recorder(samples, frozen)
    here = torch.device("meta")  # where a forward makes tensors of its own, such as positions
    with here, torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), kept(module) as saved, recorder:
        out = called(number, module.train(), acts)
    check_samples(number, out, samples)
    ops = tuple(recorder.ops)
    streams = tuple(op for op in ops if isinstance(op, Stream))
    learned = tuple(product.gradients()[1] for product in recorder.learned)
    name, entered = DTYPES[dtype], sum(one.nbytes for one in tensors(entering))
    products = tuple(grad for op in ops if isinstance(op, MatMul) for grad in _slopes(op, recorder.learned))
    return (
        Block(
            forward=Operations(ops, name),
            backward=Operations((*streams, *products), name),
            input_bytes=entered / samples,
            weight=Operations(learned, name),
            buffers=sum(buffer.numel() for _, buffer in named_buffers(module)),
            saved_bytes=max(sum(saved.values()), entered) / samples,
        ),
        out,
    )


def _all_frozen(modules: list[nn.Module]) -> bool:
    """Whether a backward pass ends before it gets to any of these."""
    every = [parameter for module in modules for parameter in module.parameters()]
    return bool(every) and not any(parameter.requires_grad for parameter in every)


def _unlearned(block: Block) -> Block:
    """The same block without a backward pass."""
    assert isinstance(block.forward, Operations)
    nothing = replace(block.forward, ops=())
    return replace(block, backward=nothing, weight=nothing)


def _slopes(product: MatMul, learned: list[MatMul]) -> tuple[MatMul, ...]:
    """Of a backward pass: both gradients, but for frozen weights that of their input alone."""
    left, right = product.gradients()
    return (left, right) if product.samples != "m" or any(one is product for one in learned) else (left,)


def _dtype(module: nn.Module, sample: torch.Tensor) -> torch.dtype:
    """Of the parameters, or of the sample where there are none."""
    found = next((p.dtype for p in module.parameters() if p.is_floating_point()), sample.dtype)
    if found not in DTYPES:
        raise ValueError(f"a module computes in one of {', '.join(map(str, DTYPES))}; got {found}")
    return found
