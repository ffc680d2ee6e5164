"""The passes of one rank through its blocks, with tensors: of whole blocks, in halves, in parts."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch

from .errors import DivergedError
from .feeding import fetched
from .halves import Later, PutOff, first_half, second_half
from .passes import BackwardPart, ForwardPart, PartPass, slope_of
from .problems.draws import mix, seeded
from .program import Backward, BackwardInput, BackwardWeight, Forward, Instruction, Load, Loss
from .rules.scaled import adaptive
from .values import Act, ActGrad, Target, Value

if TYPE_CHECKING:
    from .learning import Tensors


@dataclass(slots=True)
class Kept:
    """What a forward pass leaves for its backward pass."""

    output: torch.Tensor
    entering: torch.Tensor
    later: Later | None = None
    added: torch.Tensor | None = None


class Passes:
    """Runs the blocks of one rank, and remembers what their backward passes need."""

    def __init__(self, tensors: Tensors):
        self.tensors, self.me, self.problem, self.flat = tensors, tensors.me, tensors.problem, tensors.flat
        if self.me.cut.parted and tensors.traits.draws.intersection(self.me.blocks):
            drawing = sorted(tensors.traits.draws.intersection(self.me.blocks))
            raise ValueError(
                f"blocks that ranks run together draw no random numbers, for each rank would draw its own; blocks"
                f" {drawing} do: leave Dropout out, or use a strategy that does not split blocks"
            )
        if self.me.cut.parted and tensors.traits.keeps.intersection(self.me.blocks):
            keeping = sorted(tensors.traits.keeps.intersection(self.me.blocks))
            raise ValueError(
                f"blocks that ranks run together keep no buffers, for each rank would keep its own; training changes"
                f" those of blocks {keeping}: use LayerNorm, or a strategy that does not split blocks"
            )
        self.kept: dict[tuple[int, ...], Kept] = {}
        self.left: dict[tuple[int, int], Later] = {}
        self.past: set[Value] = set()  # gradients that went past parts, to which those of the parts are added
        self.halved = False  # until a program asks for half a backward pass
        self.loss_of_step = 0.0

    # ------------------------------------------------------------ data and loss

    def load(self, load: Load) -> None:
        """Store this rank's part of a global batch."""
        self._need_share(load)
        for value, samples in zip(load.writes, fetched(self.tensors, load)):
            self._store(value, samples)

    def _need_share(self, instruction: Instruction) -> None:
        if self.me.share is None:
            raise ValueError(
                f"only a rank with a share of the data does {instruction}; rank {self.me.rank} has none; let share(me)"
                " of its order give (worker, workers)"
            )

    def loss(self, loss: Loss) -> None:
        """The mean loss of a microbatch, and its gradient, weighted so that means over workers are those of the batch.

        What is noted adds up to the mean over the worker's own slice. Raises DivergedError when it is not finite.
        """
        self._need_share(loss)
        output = self.tensors.take(Act(loss.blocks, loss.microbatch)).requires_grad_()
        targets = self.tensors.take(Target(loss.microbatch))
        mean = self._apply(self.problem.loss, loss.blocks, loss.microbatch, self._wide(output), targets)
        weighted = mean * self.me.weight(loss.microbatch) * self.scale
        (slope,) = torch.autograd.grad(weighted, output)
        self._store(ActGrad(loss.blocks, loss.microbatch), slope)
        start, end = self.me.slice
        self.loss_of_step = mean.item() * self.me.samples(loss.microbatch) / (end - start)
        if not isfinite(self.loss_of_step):
            raise DivergedError.of_loss(self.me.rank, self.me.step, self.loss_of_step)

    def _wide(self, output: torch.Tensor) -> torch.Tensor:
        return output if self.me.reduced is None else output.to(self.flat.wide.params.dtype)

    @property
    def scale(self) -> float:
        """By what the rule wants the loss multiplied: the scale of the next update, if this rank makes any."""
        if self.me.rule is None:
            return 1.0
        own = self.tensors.own_optimizer
        if own is None and self.tensors.optimizers and adaptive(self.me.rule):
            raise ValueError(
                f"a rank with the loss sees overflows by the gradients of its own parameters, and rank {self.me.rank}"
                f" has none; got rule={self.me.rule}; give Scaled a FixedScale, or that rank a block with parameters"
            )
        return self.me.rule.loss_scale(own)

    def _apply(self, function: Any, number: int, microbatch: int, entering: torch.Tensor, *more: Any) -> torch.Tensor:
        """Call a block, or the loss, whose number is the next. What they draw does not depend on who computes."""
        traits = self.tensors.traits
        if number in traits.overwrites:
            entering = entering.clone()
        if number not in traits.draws:
            return function(entering, *more)  # type: ignore[no-any-return]
        worker = self.me.share[0] if self.me.share is not None else 0
        with seeded(mix(self.tensors.seed, self.me.step, number, microbatch, worker), self.tensors.device):
            return function(entering, *more)  # type: ignore[no-any-return]

    # ------------------------------------------------------------ whole blocks

    def forward(self, forward: Forward) -> None:
        """Run a block; keep its graph until its backward pass."""
        block, microbatch = forward.block, forward.microbatch
        if block not in self.flat.modules:
            raise ValueError(f"rank {self.me.rank} has the blocks {self.me.blocks}; got {forward}")
        entering = self._entering(Act(block, microbatch), differentiable=block > 0)
        module = self.flat.modules[block]
        later: Later | None = [] if self.halved else None
        if later is None:
            output = self.flat.narrow(self._apply(module, block, microbatch, entering))
        else:
            with PutOff(later):
                output = self.flat.narrow(self._apply(module, block, microbatch, entering))
        self.kept[block, microbatch] = Kept(output, entering, later)
        self._store(Act(block + 1, microbatch), output.detach())

    def backward(self, backward: Backward) -> None:
        """Add to the gradients of a block's parameters; give the gradient of what entered it."""
        kept, slope = self._kept(backward), self._slope(ActGrad(backward.block + 1, backward.microbatch))
        if kept.output.requires_grad:  # not so when the first blocks have no parameters
            torch.autograd.backward(kept.output, slope)
        if kept.later is not None:
            second_half(kept.later)
        self.flat.add_up(backward.block)
        self._hand_on(Act(backward.block, backward.microbatch), kept.entering, kept.entering.grad)

    def backward_input(self, backward: BackwardInput) -> None:
        """Give the gradient of what entered a block; keep what is left for its parameters."""
        self.halved = True
        kept, slope = self._kept(backward), self._slope(ActGrad(backward.block + 1, backward.microbatch))
        later = self.left[backward.block, backward.microbatch] = kept.later if kept.later is not None else []
        used = list(self.flat.modules[backward.block].parameters())
        gradient = first_half(kept.output, slope, kept.entering, used, later)
        self._hand_on(Act(backward.block, backward.microbatch), kept.entering, gradient)

    def backward_weight(self, backward: BackwardWeight) -> None:
        """Add to the gradients of a block's parameters what its BackwardInput left over."""
        later = self.left.pop((backward.block, backward.microbatch), None)
        if later is None:
            raise ValueError(f"{backward} comes after a BackwardInput of its own; rank {self.me.rank} has run none")
        second_half(later)
        self.flat.add_up(backward.block)

    # ------------------------------------------------------------ parts of blocks

    def forward_part(self, part: ForwardPart) -> None:
        """Run one part of a block; what enters it may be a shard of the tokens, or all of them again."""
        module = self.flat.parts[part.block][part.at]
        entering = self._entering(part.entering, differentiable=part.block > 0 or part.at > 0)
        added = self._entering(part.added[0], differentiable=True) if part.added else None
        shape = self.problem.shapes()[part.block][0]
        if module.shares and self.me.cut.sequence and len(shape) > 1 and entering.dim() == 2:
            entering_view = entering.view(int(self.me.samples(part.microbatch)), -1, entering.shape[-1])
        else:
            entering_view = entering
        output = self.flat.narrow(module(entering_view, added))
        self.kept[part.block, part.microbatch, part.at] = Kept(output, entering, None, added)
        self._store(part.leaving, output.detach())

    def backward_part(self, part: BackwardPart) -> None:
        """The gradients of what a part read; those that another part gave already are added to."""
        kept, slope = self._kept(part), self._slope(slope_of(part.leaving))
        if kept.output.requires_grad:
            torch.autograd.backward(kept.output, slope.reshape(kept.output.shape))
        self.flat.add_up(part.block)
        self._hand_on(part.entering, kept.entering, kept.entering.grad)
        if kept.added is not None and kept.added.grad is not None:
            self._store(slope_of(part.added[0]), kept.added.grad)
            self.past.add(part.added[0])

    # ------------------------------------------------------------ helpers

    def _store(self, value: Value, tensor: torch.Tensor) -> None:
        self.tensors.store[value] = tensor
        self.me.sizes[value] = tensor.nbytes

    def _entering(self, value: Value, differentiable: bool) -> torch.Tensor:
        entering = self.flat.narrow(self.tensors.read(value).detach())
        entering.requires_grad_(differentiable and entering.is_floating_point())
        return entering

    def _kept(self, backward: Backward | BackwardInput | PartPass) -> Kept:
        at = (backward.at,) if isinstance(backward, PartPass) else ()
        key = (backward.block, backward.microbatch, *at)
        if key not in self.kept:
            raise ValueError(
                f"{backward} comes after a Forward of its own; rank {self.me.rank} has run none before it"
            )
        return self.kept.pop(key)

    def _slope(self, value: Value) -> torch.Tensor:
        return self.tensors.take(value)

    def _hand_on(self, value: Value, entering: torch.Tensor, gradient: torch.Tensor | None) -> None:
        """Store the gradient of what entered, where it has one; what entered is needed no longer."""
        self.tensors.store.pop(value, None)
        if entering.requires_grad:  # zero where the block does not depend on what enters it
            gradient = torch.zeros_like(entering) if gradient is None else gradient
            if value in self.past:
                self.past.remove(value)
                gradient = gradient + self.tensors.take(slope_of(value)).view_as(gradient)
            self._store(slope_of(value), gradient)
