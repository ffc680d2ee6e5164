"""The tensors of one rank: what its instructions do to real numbers, on either clock.

Both machines hand their compute instructions to a ``Tensors``; only time and transport differ between them. All
parameters of a rank lie in one flat vector, and so do their gradients, so that ``Grads((1, 2))`` or a ``Chunk`` is a
piece of memory: a collective or a rule works on it without copying.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

import torch

from .errors import DivergedError
from .problems.draws import mix, seeded
from .program import (
    Backward,
    Compute,
    Copy,
    Forward,
    Free,
    Instruction,
    Load,
    Loss,
    Reduce,
    Update,
)
from .rank import Rank
from .values import Act, ActGrad, Chunk, Grads, Nothing, Params, Target, Value, bounds

if TYPE_CHECKING:

    from .holdings import Piece
    from .problem import Problem


class Batches:
    """The global batches of a run; the last ones are kept, for workers that are at different steps."""

    def __init__(self, problem: Problem, seed: int):
        self.of = lru_cache(maxsize=32)(lambda step: problem.batch_of(seed, step))


class Tensors:
    """Parameters, gradients, activations and buffers of one rank."""

    def __init__(self, me: Rank, problem: Problem, seed: int, batches: Batches, device: str = "cpu"):
        if not me.blocks or me.blocks != tuple(range(me.blocks[0], me.blocks[-1] + 1)):
            raise ValueError(f"a rank learns neighbouring blocks in ascending order; rank {me.rank} has {me.blocks}")
        self.me, self.problem, self.seed, self.batches, self.device = me, problem, seed, batches, device
        self.traits = problem.traits
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
        if first not in self.blocks or last not in self.blocks:
            raise ValueError(f"rank {self.me.rank} has the blocks {self.me.blocks}; got {value}")
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
        return self._kept(value)

    def _kept(self, value: Value) -> torch.Tensor:
        if value not in self.store:
            raise ValueError(f"rank {self.me.rank} holds no {value} in step {self.me.step}: nothing has written it")
        return self.store[value]

    def _take(self, value: Value) -> torch.Tensor:
        """The tensor of a value that is kept by name, which is then forgotten."""
        tensor = self._kept(value)
        del self.store[value]
        return tensor

    def write(self, value: Value, tensor: torch.Tensor) -> None:
        """Store a tensor under a name; numbers that lie in a flat vector are copied into it."""
        region = self.region(value)
        if region is not None:
            region.copy_(tensor.reshape(-1))
        elif isinstance(value, Chunk):
            self.read(value).copy_(tensor.reshape(-1))
        elif not isinstance(value, Nothing):
            self.store[value] = tensor
            self.me.sizes[value] = tensor.nbytes

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
        start, end = bounds(len(inputs), *self._share(load))
        first, last = bounds(end - start, load.microbatch, self.me.microbatches)
        mine = slice(start + first, start + last)
        self.store[Act(0, load.microbatch)] = inputs[mine].to(self.device)
        self.store[Target(load.microbatch)] = targets[mine].to(self.device)

    def _share(self, instruction: Instruction) -> tuple[int, int]:
        if self.me.share is None:
            raise ValueError(
                f"only a rank with a share of the data does {instruction}; rank {self.me.rank} has none; let share(me)"
                " of its order give (worker, workers)"
            )
        return self.me.share

    def _apply(self, function: Any, number: int, microbatch: int, entering: torch.Tensor, *more: Any) -> torch.Tensor:
        """Call a block, or the loss, whose number is the next. What they draw does not depend on who computes."""
        if number in self.traits.overwrites:
            entering = entering.clone()
        if number not in self.traits.draws:
            return function(entering, *more)  # type: ignore[no-any-return]
        worker = self.me.share[0] if self.me.share is not None else 0
        with seeded(mix(self.seed, self.me.step, number, microbatch, worker), self.device):
            return function(entering, *more)  # type: ignore[no-any-return]

    def _forward(self, forward: Forward) -> None:
        block, microbatch = forward.block, forward.microbatch
        if block not in self.blocks:
            raise ValueError(f"rank {self.me.rank} has the blocks {self.me.blocks}; got {forward}")
        entering = self.read(Act(block, microbatch)).detach()
        entering.requires_grad_(block > 0 and entering.is_floating_point())
        self.store[Act(block, microbatch)] = entering
        out = self._apply(self.blocks[block], block, microbatch, entering)
        self.outputs[block, microbatch] = out
        self.store[Act(block + 1, microbatch)] = out.detach()

    def _loss(self, loss: Loss) -> None:
        worker, workers = self._share(loss)
        output = self._take(Act(loss.blocks, loss.microbatch)).requires_grad_()
        targets = self._take(Target(loss.microbatch))
        mean = self._apply(self.problem.loss, loss.blocks, loss.microbatch, output, targets)
        # Weighted so that the mean over workers of the sum over microbatches is the gradient of the global batch, also
        # where the slices are not of one size. What is noted adds up to the mean over the worker's own slice.
        samples, (start, end) = self.me.samples(loss.microbatch), bounds(self.problem.batch, worker, workers)
        weighted = mean * (samples * workers / self.problem.batch)
        (self.store[ActGrad(loss.blocks, loss.microbatch)],) = torch.autograd.grad(weighted, output)
        self.loss = mean.item() * samples / (end - start)
        if not isfinite(self.loss):
            raise DivergedError(
                f"a loss is a finite number; rank {self.me.rank} got {self.loss} in step {self.me.step}:"
                " the training diverged, or the data hold NaN; try a smaller learning rate"
            )

    def _backward(self, backward: Backward) -> None:
        block, microbatch = backward.block, backward.microbatch
        if (block, microbatch) not in self.outputs:
            raise ValueError(f"{backward} comes after a Forward of its own; rank {self.me.rank} has run none before it")
        slope = self._take(ActGrad(block + 1, microbatch))
        output = self.outputs.pop((block, microbatch))
        if output.requires_grad:  # not so when the first blocks have no parameters
            torch.autograd.backward(output, slope)
        entered = self._take(Act(block, microbatch))
        if entered.requires_grad:  # without a gradient where the block does not depend on what enters it
            self.store[ActGrad(block, microbatch)] = torch.zeros_like(entered) if entered.grad is None else entered.grad

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
        if not isinstance(results, (tuple, list)):
            results = () if results is None else (results,)
        if len(results) != len(compute.writes) or not all(isinstance(result, torch.Tensor) for result in results):
            raise ValueError(
                f"the function of a Compute gives a tensor for each of its {len(compute.writes)} writes; {compute}"
                f" gave {', '.join(type(result).__name__ for result in results) or 'none'}"
            )
        for value, tensor in zip(compute.writes, results):
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
