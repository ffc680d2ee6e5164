"""The tensors of one rank: what its instructions do to real numbers, on either clock.

Both machines hand their compute instructions to a ``Tensors``; only time and transport differ between them. All
parameters of a rank lie in one flat vector, and so do their gradients, so that ``Grads((1, 2))`` or a ``Chunk`` is a
piece of memory: a collective or a rule works on it without copying.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from math import nan
from typing import TYPE_CHECKING, Any

import torch

from .layout import Layout
from .leaves import optimizer_of
from .passes import BackwardPart, ForwardPart
from .passing import Passes
from .problems.blocks import named_parameters
from .program import (
    Backward,
    BackwardInput,
    BackwardWeight,
    Compute,
    Copy,
    Forward,
    Free,
    Instruction,
    Load,
    Loss,
    Measure,
    Reduce,
    Update,
)
from .rank import Rank
from .rules.scaled import adaptive, scaled
from .values import Act, ActGrad, Chunk, Nothing, Params, Value, bounds, whole

if TYPE_CHECKING:
    from .holdings import Piece
    from .problem import Problem


class Batches:
    """The global batches of a run; the last ones are kept, for workers that are at different steps."""

    def __init__(self, problem: Problem, seed: int):
        self.of = lru_cache(maxsize=32)(lambda step: problem.drawn(seed, step))


class Tensors:
    """Parameters, gradients, activations and buffers of one rank."""

    def __init__(self, me: Rank, problem: Problem, seed: int, batches: Batches, device: str = "cpu"):
        if not me.blocks:
            raise ValueError(f"a rank learns at least one block; rank {me.rank} has none: see blocks(me) of its order")
        self.me, self.problem, self.seed, self.batches, self.device = me, problem, seed, batches, device
        self.traits = problem.traits
        self.flat = Layout(me, problem.build(seed), device)
        if me.rule is not None:
            me.rule.check([name for name, _ in named_parameters(self.flat.every)])
        self.region = self.flat.region
        self.store: dict[Value, torch.Tensor] = {}
        self.optimizers: dict[Value, torch.optim.Optimizer] = {}
        self.measured = 0.0
        self.passes = passes = Passes(self)
        self.run: Mapping[type[Instruction], Callable[[Any], None]] = {
            Load: passes.load, Forward: passes.forward, Loss: passes.loss, Backward: passes.backward,
            BackwardInput: passes.backward_input, BackwardWeight: passes.backward_weight,
            ForwardPart: passes.forward_part, BackwardPart: passes.backward_part,
            Update: self._update, Reduce: self._reduce, Copy: self._copy, Compute: self._compute,
            Measure: self._measure, Free: self._free,
        }  # fmt: skip

    def compute(self, instruction: Instruction) -> tuple[str, float] | None:
        """Do the maths of an instruction; gives the name and value of a number to note, if it gives one."""
        self.run[type(instruction)](instruction)
        if type(instruction) is Loss and self.me.cut.speaks:
            return "loss", self.passes.loss_of_step
        if type(instruction) is Update and scaled(self.me.rule):
            return self._scale_after(instruction)
        return (instruction.name, self.measured) if type(instruction) is Measure else None

    def _scale_after(self, update: Update) -> tuple[str, float] | None:
        """The loss scale after the first update of a step; the others change it alike."""
        own = self.own_optimizer
        same = own is not None and own is self.optimizers[update.params]
        return ("loss_scale", self.me.rule.loss_scale(own)) if same and self.me.rule is not None else None

    @property
    def own_optimizer(self) -> torch.optim.Optimizer | None:
        """The first that updates any number; None before the first update, and where others make them all."""
        return next((made for params, made in self.optimizers.items() if self.me.elements(params)), None)

    # ------------------------------------------------------------ values

    def read(self, value: Value) -> torch.Tensor:
        """The tensor of a value; a view, not a copy."""
        region = self.region(value)
        if region is not None:
            return region
        if isinstance(value, Chunk):
            whole = self.read(value.value).reshape(-1)
            return whole[slice(*bounds(whole.numel(), value.index, value.of))]
        if isinstance(value, Nothing):
            return torch.empty(0, dtype=self.flat.params.dtype, device=self.device)
        return self._kept(value)

    def _kept(self, value: Value) -> torch.Tensor:
        if value not in self.store:
            raise ValueError(f"rank {self.me.rank} holds no {value} in step {self.me.step}: nothing has written it")
        return self.store[value]

    def take(self, value: Value) -> torch.Tensor:
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
            if self.me.reduced is not None and value.block and dtype.is_floating_point:
                dtype = self.me.reduced.torch_dtype
            return self.me.cut.shape(value.block, (int(self.me.samples(value.microbatch)), *shape)), dtype
        tensor = self.read(value)
        return tuple(tensor.shape), tensor.dtype

    # ------------------------------------------------------------ instructions

    def _update(self, update: Update) -> None:
        optimizer, flat = self.optimizers.get(update.params), self.flat.wide
        params, rule = flat.region(update.params), self.me.rule
        assert params is not None and rule is not None
        self._require_known_scale(update)
        if self.flat.masters is not None:
            self.flat.masters.before_update(update.params)
        if optimizer is None:
            optimizer = self.optimizers[update.params] = optimizer_of(rule, flat, update.params, params)
        since = None if update.since is None else self.read(update.since).to(params.dtype)
        kept = params.clone() if self.flat.frozen is not None else None
        rule.step(optimizer, staleness=update.staleness, since=since)
        if kept is not None and self.flat.frozen is not None:  # weight decay would move them even without a gradient
            torch.where(self.flat.frozen[params.storage_offset() :][: params.numel()], kept, params, out=params)
        if self.flat.masters is not None:
            self.flat.masters.after_update(update.params)
        self.flat.gradients(params).zero_()

    def _require_known_scale(self, update: Update) -> None:
        """A server's scale must stay: the workers, who multiply the loss, have no optimizer to read it from."""
        if self.me.share is None and adaptive(self.me.rule):
            raise ValueError(
                f"workers do not see how the scale of a server changes; got rule={self.me.rule} for {update} on rank"
                f" {self.me.rank}; give Scaled a FixedScale, or take a strategy whose workers update themselves"
            )

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
        known = {self.read(value).untyped_storage().data_ptr() for value in compute.reads}
        for value, tensor in zip(compute.writes, results):
            # What a function passes on from its arguments, or gives twice, is copied: it may change, or be sent on.
            place = tensor.untyped_storage().data_ptr()
            self.write(value, tensor.clone() if place in known else tensor)
            known.add(place)

    def _measure(self, measure: Measure) -> None:
        function: Any = measure.function
        self.measured = float(function(*(self.read(value) for value in measure.reads)))

    def _free(self, free: Free) -> None:
        region = self.region(free.value)
        if region is None:
            self.store.pop(free.value, None)
            return
        kept = None if free.keep is None else self.read(free.keep).clone()
        # Parameters that are gone must not be used: what they would give shows at once.
        region.fill_(nan if isinstance(whole(free.value), Params) else 0.0)
        if free.keep is not None and kept is not None:
            self.write(free.keep, kept)

    # ------------------------------------------------------------ what remains

    def pieces(self, values: Iterable[Value]) -> list[Piece]:
        """The parameters that values name, and where they lie among those of all blocks."""
        found: list[Piece] = []
        for value in values:
            region = self.region(value)
            assert region is not None, f"a rank holds parameters, or a chunk of them; got {value}"
            found += self.flat.found(region)
        return found

    def buffers(self) -> dict[str, Any]:
        """What the blocks keep beside their parameters, by name, if this rank is one that computes them."""
        if self.me.share is None:
            return {}
        kept = [buffers.named(block) for block, buffers in self.flat.buffers.items()]
        return {name: array for mine in kept for name, array in mine.items()}
