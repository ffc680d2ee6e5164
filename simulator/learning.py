"""The tensors of one rank: what its instructions do to real numbers, on either clock.

Both machines hand their compute instructions to a ``Tensors``; only time and transport differ between them. All
parameters of a rank lie in one flat vector, and so do their gradients, so that ``Grads((1, 2))`` or a ``Chunk`` is a
piece of memory: a collective or a rule works on it without copying.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

import torch

from .errors import DivergedError
from .program import (
    AllGather,
    AllReduce,
    Backward,
    Broadcast,
    Collective,
    Compute,
    Copy,
    Forward,
    Free,
    Instruction,
    Load,
    Loss,
    Reduce,
    ReduceScatter,
    Update,
)
from .rank import Rank
from .values import Act, ActGrad, Chunk, Grads, Nothing, Params, Target, Value, bounds

if TYPE_CHECKING:
    import numpy as np

    from .problem import Problem

Piece = tuple[int, "np.ndarray"]
"""Where in the flat vector of all parameters a piece begins, and its numbers."""


class Batches:
    """The global batches of a run; the last ones are kept, for workers that are at different steps."""

    def __init__(self, problem: Problem, seed: int):
        self.of = lru_cache(maxsize=32)(lambda step: problem.batch_of(seed, step))


class Tensors:
    """Parameters, gradients, activations and buffers of one rank."""

    def __init__(self, me: Rank, problem: Problem, seed: int, batches: Batches, device: str = "cpu"):
        self.me, self.problem, self.batches, self.device = me, problem, batches, device
        every = problem.build(seed)
        self.offsets = _offsets(every)
        self.blocks = {block: every[block].to(device).train() for block in me.blocks}
        self.first = self.offsets[me.blocks[0]]
        self.params, self.grads = _flatten(list(self.blocks.values()), device)
        self.frozen = _frozen(list(self.blocks.values()), device)
        self.store: dict[Value, torch.Tensor] = {}
        self.outputs: dict[tuple[int, int], torch.Tensor] = {}
        self.optimizers: dict[Value, torch.optim.Optimizer] = {}
        self.loss = 0.0
        self.run: Mapping[type[Instruction], Callable[[Any], None]] = {
            Load: self._load, Forward: self._forward, Loss: self._loss, Backward: self._backward,
            Update: self._update, Reduce: self._reduce, Copy: self._copy, Compute: self._compute, Free: self._free,
        }  # fmt: skip

    def compute(self, instruction: Instruction) -> float | None:
        """Do the maths of an instruction; gives the loss after a Loss."""
        self.run[type(instruction)](instruction)
        return self.loss if type(instruction) is Loss else None

    # ------------------------------------------------------------ values

    def region(self, value: Value) -> torch.Tensor | None:
        """The piece of the flat vectors that a value names; None for values that are kept by name."""
        if isinstance(value, Chunk):
            whole = self.region(value.value)
            return None if whole is None else whole[slice(*bounds(whole.numel(), value.index, value.of))]
        if not isinstance(value, (Params, Grads)):
            return None
        first, last = value.blocks[0], value.blocks[-1]
        if value.blocks != tuple(range(first, last + 1)):
            raise ValueError(f"a value of several blocks names neighbours in ascending order; got {value}")
        flat = self.params if isinstance(value, Params) else self.grads
        return flat[self.offsets[first] - self.first : self.offsets[last + 1] - self.first]

    def read(self, value: Value) -> torch.Tensor:
        """The tensor of a value; a view, not a copy."""
        region = self.region(value)
        if region is not None:
            return region
        if isinstance(value, Chunk):
            whole = self.read(value.value).reshape(-1)
            return whole[slice(*bounds(whole.numel(), value.index, value.of))]
        if isinstance(value, Nothing):
            return torch.empty(0, dtype=self.params.dtype, device=self.device)
        if value not in self.store:
            raise ValueError(f"rank {self.me.rank} holds no {value} in step {self.me.step}: nothing has written it")
        return self.store[value]

    def write(self, value: Value, tensor: torch.Tensor) -> None:
        """Store a tensor under a name; numbers that lie in a flat vector are copied into it."""
        region = self.region(value)
        if region is not None:
            region.copy_(tensor.reshape(-1))
        elif isinstance(value, Chunk):
            self.read(value).copy_(tensor.reshape(-1))
        elif not isinstance(value, Nothing):
            self.store[value] = tensor

    def layout(self, value: Value) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape and type of a value, for who is to receive it."""
        if isinstance(value, (Act, ActGrad)):
            shape, dtype = self.problem.shapes()[value.block]
            return (int(self.me.samples(value.microbatch)), *shape), dtype
        tensor = self.read(value)
        return tuple(tensor.shape), tensor.dtype

    # ------------------------------------------------------------ instructions

    def _load(self, load: Load) -> None:
        inputs, targets = self.batches.of(self.me.step)
        assert self.me.share is not None, "only ranks with a share of the data load"
        start, end = bounds(len(inputs), *self.me.share)
        first, last = bounds(end - start, load.microbatch, self.me.microbatches)
        mine = slice(start + first, start + last)
        self.store[Act(0, load.microbatch)] = inputs[mine].to(self.device)
        self.store[Target(load.microbatch)] = targets[mine].to(self.device)

    def _forward(self, forward: Forward) -> None:
        block, microbatch = forward.block, forward.microbatch
        entering = self.read(Act(block, microbatch)).detach()
        entering.requires_grad_(block > 0 and entering.is_floating_point())
        self.store[Act(block, microbatch)] = entering
        out = self.blocks[block](entering)
        self.outputs[block, microbatch] = out
        self.store[Act(block + 1, microbatch)] = out.detach()

    def _loss(self, loss: Loss) -> None:
        output = self.store.pop(Act(loss.blocks, loss.microbatch)).requires_grad_()
        targets = self.store.pop(Target(loss.microbatch))
        # Weighted so that the mean over workers of the sum over microbatches is the mean over the global batch,
        # also where the slices are not of one size.
        assert self.me.share is not None
        weight = self.me.samples(loss.microbatch) * self.me.share[1] / self.problem.batch
        value = self.problem.loss(output, targets) * weight
        (self.store[ActGrad(loss.blocks, loss.microbatch)],) = torch.autograd.grad(value, output)
        self.loss = value.item()
        if not isfinite(self.loss):
            raise DivergedError(
                f"a loss is a finite number; rank {self.me.rank} got {self.loss} in step {self.me.step}:"
                " the training diverged, or the data hold NaN; try a smaller learning rate"
            )

    def _backward(self, backward: Backward) -> None:
        block, microbatch = backward.block, backward.microbatch
        slope = self.store.pop(ActGrad(block + 1, microbatch))
        output = self.outputs.pop((block, microbatch))
        if output.requires_grad:  # not so when the first blocks have no parameters
            torch.autograd.backward(output, slope)
        entered = self.store.pop(Act(block, microbatch))
        if entered.grad is not None:
            self.store[ActGrad(block, microbatch)] = entered.grad

    def _update(self, update: Update) -> None:
        optimizer = self.optimizers.get(update.params)
        params, rule = self.region(update.params), self.me.rule
        assert params is not None and rule is not None
        grads = self.grads[params.storage_offset() :][: params.numel()]
        if optimizer is None:
            leaf = torch.nn.Parameter(params)
            leaf.grad = grads
            optimizer = self.optimizers[update.params] = rule.optimizer([leaf])
        since = None if update.since is None else self.read(update.since)
        kept = params.clone() if self.frozen is not None else None
        rule.step(optimizer, staleness=update.staleness, since=since)
        if kept is not None and self.frozen is not None:  # weight decay would move them, although they have no gradient
            torch.where(self.frozen[params.storage_offset() :][: params.numel()], kept, params, out=params)
        grads.zero_()

    def _reduce(self, reduce: Reduce) -> None:
        self.read(reduce.target).reshape(-1).add_(self.read(reduce.source).reshape(-1), alpha=reduce.scale)

    def _copy(self, copy: Copy) -> None:
        self.write(copy.target, self.read(copy.source).clone())

    def _compute(self, compute: Compute) -> None:
        function: Any = compute.function
        results = function(*(self.read(value) for value in compute.reads))
        results = results if isinstance(results, tuple) else (results,)
        for value, tensor in zip(compute.writes, results, strict=True):
            self.write(value, tensor)

    def _free(self, free: Free) -> None:
        region = self.region(free.value)
        if region is not None:
            region.zero_()
        self.store.pop(free.value, None)

    # ------------------------------------------------------------ what remains

    def pieces(self, value: Value | None) -> list[Piece]:
        """The parameters that a value names, and where they lie among those of all blocks."""
        if value is None:
            return []
        region = self.region(value)
        assert region is not None, f"a rank holds parameters, or a chunk of them; got {value}"
        return [(self.first + int(region.storage_offset()), region.detach().cpu().numpy().copy())]


def assemble(problem: Problem, seed: int, pieces: list[Piece]) -> dict[str, np.ndarray]:
    """Parameters by name, from the pieces that the ranks hold; where several hold one, the first counts."""
    import numpy as np

    named = problem.parameters(seed)
    flat = np.full(sum(array.size for array in named.values()), np.nan, dtype=next(iter(named.values())).dtype)
    for start, numbers in reversed(pieces):
        flat[start : start + len(numbers)] = numbers
    ends = np.cumsum([array.size for array in named.values()])[:-1]
    return {name: part.reshape(named[name].shape) for name, part in zip(named, np.split(flat, ends))}


def combine(instruction: Collective, members: Sequence[Tensors]) -> None:
    """The maths of a collective, for members in the order of their positions."""
    tensors = [member.read(instruction.value) for member in members]
    if isinstance(instruction, (AllReduce, ReduceScatter)):
        total = torch.stack(tensors).sum(0)
        if instruction.op == "mean":
            total /= len(members)
    for position, (member, tensor) in enumerate(zip(members, tensors)):
        part = slice(*bounds(tensor.numel(), position, len(members)))
        if isinstance(instruction, AllReduce):
            member.write(instruction.value, total)
        elif isinstance(instruction, ReduceScatter):
            tensor.reshape(-1)[part].copy_(total.reshape(-1)[part])
        elif isinstance(instruction, AllGather):
            for other in members:
                other.read(instruction.value).reshape(-1)[part].copy_(tensor.reshape(-1)[part])
        elif isinstance(instruction, Broadcast) and position != instruction.root:
            member.write(instruction.value, tensors[instruction.root].clone())


def _offsets(blocks: list[torch.nn.Module]) -> list[int]:
    """Where each block's parameters begin in the flat vector of all; one more for its end."""
    offsets = [0]
    for block in blocks:
        offsets.append(offsets[-1] + sum(prod(parameter.shape) for parameter in block.parameters()))
    return offsets


def _frozen(blocks: list[torch.nn.Module], device: str) -> torch.Tensor | None:
    """Which elements of the flat vector of parameters do not learn; None where all do."""
    parameters = [parameter for block in blocks for parameter in block.parameters()]
    if all(parameter.requires_grad for parameter in parameters):
        return None
    return torch.cat([torch.full((p.numel(),), not p.requires_grad, device=device) for p in parameters])


def _flatten(blocks: list[torch.nn.Module], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Move all parameters, and zero gradients for them, into one vector each; the modules keep views."""
    parameters = [parameter for block in blocks for parameter in block.parameters()]
    if not parameters:
        return torch.empty(0, device=device), torch.empty(0, device=device)
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    grads = torch.zeros_like(flat)
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        parameter.data = flat[start:end].view_as(parameter)
        parameter.grad = grads[start:end].view_as(parameter)
        start = end
    return flat, grads
