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
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from .. import checks
from ..model import Block, Model
from ..operations import MatMul, Operations, Stream
from ..problems.blocks import named_buffers, own_parameters, ties
from ..problems.inspection import applied
from .transformer import ADAM

Sample = torch.Tensor | tuple[torch.Tensor, ...] | dict[str, torch.Tensor]
"""What a module is called with: one input, several in order, or by name."""
ATEN = torch.ops.aten
DTYPES = {torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
PRODUCTS = {ATEN.mm: (0, 1), ATEN.addmm: (1, 2), ATEN.bmm: (0, 1), ATEN.baddbmm: (1, 2)}
"""Where the two matrices stand among the arguments."""
FREE = {ATEN.empty, ATEN.detach, ATEN._unsafe_view, ATEN.lift_fresh, ATEN.empty_like, ATEN.empty_strided}
"""What touches no memory."""


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
            touched = sum(tensor.nbytes for tensor in _tensors((args, kwargs, out)))
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


def model_of(module: nn.Module, sample: Sample, name: str | None = None, tokens: int | None = None) -> Model:
    """See ``Model.from_torch``."""
    checks.kind("module", module, nn.Module, "a torch.nn.Module, such as torch.nn.Linear(8, 4)")
    first = _checked(sample)
    whole = _on_meta(module)
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
    acts = pytree.tree_map_only(torch.Tensor, _shape, entering)
    frozen = {p.untyped_storage()._cdata for p in module.parameters() if not p.requires_grad}
    recorder = Recorder(samples, frozen)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), _kept(module) as kept, recorder:
        out = _called(number, module.train(), acts)
    _check_samples(number, out, samples)
    ops = tuple(recorder.ops)
    streams = tuple(op for op in ops if isinstance(op, Stream))
    learned = tuple(product.gradients()[1] for product in recorder.learned)
    name, entered = DTYPES[dtype], sum(one.nbytes for one in _tensors(entering))
    products = tuple(grad for op in ops if isinstance(op, MatMul) for grad in _slopes(op, recorder.learned))
    return (
        Block(
            forward=Operations(ops, name),
            backward=Operations((*streams, *products), name),
            input_bytes=entered / samples,
            weight=Operations(learned, name),
            buffers=sum(buffer.numel() for _, buffer in named_buffers(module)),
            saved_bytes=max(sum(kept.values()), entered) / samples,
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


def _shape(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor without numbers, where a gradient ends."""
    return tensor.detach().to("meta").requires_grad_(tensor.is_floating_point())


def _called(number: int, module: nn.Module, acts: Any) -> Any:
    """What a module makes of its inputs, given as it is called: one, in order, or by name."""
    if number and not isinstance(acts, torch.Tensor):
        raise ValueError(f"one tensor passes from block to block; block {number - 1} returned a {type(acts).__name__}")
    try:
        if isinstance(acts, dict):
            return module(**acts)
        return module(*acts) if isinstance(acts, (tuple, list)) else applied(number, module, acts)
    except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError) as error:
        if "meta" in str(error):
            raise ValueError(
                f"only shapes are known of what enters block {number}, so its forward cannot look at numbers, as in"
                f" `if x.sum() > 0` or x.item(): give a module without that; torch says: {error}"
            ) from error
        if isinstance(acts, (tuple, list, dict)):
            said = f"{type(error).__name__}: {error}"
            raise ValueError(f"block {number} cannot take the inputs of sample: {said}") from error
        raise


def _check_samples(number: int, out: Any, samples: int) -> None:
    """What leaves a block has as many samples as entered, or rows of them; a loss has none."""
    if isinstance(out, torch.Tensor) and out.dim() and len(out) % samples:
        raise ValueError(
            f"blocks keep the samples along the first dimension; block {number} made shape {tuple(out.shape)} of"
            f" {samples} sample(s): where sample is a single one, give sample.unsqueeze(0)"
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
