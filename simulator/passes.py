"""The passes through a model: load, forward, loss, and backward in one piece or in two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from . import checks
from .instruction import Instruction
from .values import Act, ActGrad, Ahead, Grads, Inner, InnerGrad, Params, Target, Value


@dataclass(frozen=True)
class Load(Instruction):
    """Fetch this rank's share of a microbatch: inputs ``Act(0, microbatch)`` and targets.

    Numbers from ``me.microbatches`` on name the same parts again, of another step that is under way. With ``step`` it
    fetches those of that step ahead of time, and stores them as ``Ahead(…, step)``. Raises ValueError for numbers
    below 0.

    >>> print(*Load(1).writes)
    Act(0, mb 1) Target(mb 1)
    """

    microbatch: int = 0
    step: int | None = None

    def __post_init__(self) -> None:
        _require_place(self)
        if self.step is not None:
            checks.whole("step", self.step, of="Load")

    @property
    def writes(self) -> tuple[Value, ...]:
        inputs, targets = Act(0, self.microbatch), Target(self.microbatch)
        return (inputs, targets) if self.step is None else (Ahead(inputs, self.step), Ahead(targets, self.step))

    def __str__(self) -> str:
        return f"Load mb{self.microbatch}" + ("" if self.step is None else f" of step {self.step}")


@dataclass(frozen=True)
class Loss(Instruction):
    """Compare the output ``Act(blocks)`` with the targets; note the loss; start the backward pass.

    >>> print(*Loss(4, 1).reads, "->", *Loss(4, 1).writes)
    Act(4, mb 1) Target(mb 1) -> ActGrad(4, mb 1)
    """

    blocks: int
    microbatch: int = 0

    def __post_init__(self) -> None:
        _require_place(self)

    @property
    def reads(self) -> tuple[Value, ...]:
        return Act(self.blocks, self.microbatch), Target(self.microbatch)

    @property
    def writes(self) -> tuple[Value, ...]:
        return (ActGrad(self.blocks, self.microbatch),)

    def __str__(self) -> str:
        return f"Loss mb{self.microbatch}"


@dataclass(frozen=True)
class Pass(Instruction):
    """One block and one microbatch, in one direction. Abstract: use a subclass."""

    block: int
    microbatch: int = 0

    def __post_init__(self) -> None:
        _require_place(self)

    def __str__(self) -> str:
        return f"{type(self).__name__} {self.block} mb{self.microbatch}"


@dataclass(frozen=True)
class Forward(Pass):
    """Run one block forward: from ``Act(block)`` to ``Act(block + 1)``.

    >>> print(*Forward(2, 1).reads, "->", *Forward(2, 1).writes)
    Params(2) Act(2, mb 1) -> Act(3, mb 1)
    """

    @property
    def reads(self) -> tuple[Value, ...]:
        return Params(self.block), Act(self.block, self.microbatch)

    @property
    def writes(self) -> tuple[Value, ...]:
        return (Act(self.block + 1, self.microbatch),)


@dataclass(frozen=True)
class Backward(Pass):
    """Run one block backward: adds to ``Grads(block)`` and gives ``ActGrad(block)``.

    >>> print(*Backward(2, 1).reads, "->", *Backward(2, 1).writes)
    Params(2) Act(2, mb 1) ActGrad(3, mb 1) -> Grads(2) ActGrad(2, mb 1)
    """

    makes: ClassVar[tuple[type[Value], ...]] = (Grads,)

    @property
    def reads(self) -> tuple[Value, ...]:
        return Params(self.block), Act(self.block, self.microbatch), ActGrad(self.block + 1, self.microbatch)

    @property
    def writes(self) -> tuple[Value, ...]:
        return Grads(self.block), ActGrad(self.block, self.microbatch)


@dataclass(frozen=True)
class BackwardInput(Pass):
    """The first half of a block's backward pass: gives ``ActGrad(block)``; its ``BackwardWeight`` comes later.

    >>> print(*BackwardInput(2, 1).writes, "and later", *BackwardWeight(2, 1).writes)
    ActGrad(2, mb 1) and later Grads(2)
    """

    @property
    def reads(self) -> tuple[Value, ...]:
        return Params(self.block), Act(self.block, self.microbatch), ActGrad(self.block + 1, self.microbatch)

    @property
    def writes(self) -> tuple[Value, ...]:
        return (ActGrad(self.block, self.microbatch),)


@dataclass(frozen=True)
class BackwardWeight(Pass):
    """The second half of a block's backward pass: adds to ``Grads(block)`` what its ``BackwardInput`` left over.

    Nobody waits for it, so that a schedule can fill its bubbles with it (Qi et al. 2023, arXiv:2401.10241).
    """

    makes: ClassVar[tuple[type[Value], ...]] = (Grads,)

    @property
    def writes(self) -> tuple[Value, ...]:
        return (Grads(self.block),)


@dataclass(frozen=True)
class PartPass(Instruction):
    """Part ``at`` of the ``of`` parts of a block, in one direction. Abstract: use a subclass.

    Tensor, context and expert parallelism run a block in parts, to communicate between them. ``adds`` is the number of
    a part before it, if what entered that is added here (a residual connection).
    """

    block: int
    microbatch: int
    at: int
    of: int
    adds: int | None = None

    def __str__(self) -> str:
        return f"{type(self).__name__} {self.block}.{self.at} mb{self.microbatch}"

    @property
    def entering(self) -> Value:
        """What enters this part."""
        return entering(self.block, self.microbatch, self.at, self.of)

    @property
    def leaving(self) -> Value:
        """What leaves this part."""
        return entering(self.block, self.microbatch, self.at + 1, self.of)

    @property
    def added(self) -> tuple[Value, ...]:
        """What else it reads: the value that it adds."""
        return () if self.adds is None else (entering(self.block, self.microbatch, self.adds, self.of),)


@dataclass(frozen=True)
class ForwardPart(PartPass):
    """Run one part of a block forward."""

    @property
    def reads(self) -> tuple[Value, ...]:
        return Params(self.block), self.entering, *self.added

    @property
    def writes(self) -> tuple[Value, ...]:
        return (self.leaving,)


@dataclass(frozen=True)
class BackwardPart(PartPass):
    """Run one part of a block backward: adds to ``Grads(block)``, gives the gradients of all that it read."""

    makes: ClassVar[tuple[type[Value], ...]] = (Grads,)

    @property
    def reads(self) -> tuple[Value, ...]:
        return Params(self.block), self.entering, *self.added, slope_of(self.leaving)

    @property
    def writes(self) -> tuple[Value, ...]:
        return Grads(self.block), slope_of(self.entering), *map(slope_of, self.added)


def entering(block: int, microbatch: int, at: int, of: int) -> Value:
    """What enters part ``at`` of the ``of`` parts of a block."""
    if at == 0:
        return Act(block, microbatch)
    return Act(block + 1, microbatch) if at == of else Inner(block, microbatch, at)


def slope_of(value: Value) -> Value:
    """The gradient of the loss with respect to an activation."""
    if isinstance(value, Inner):
        return InnerGrad(value.block, value.microbatch, value.at)
    if isinstance(value, Act):
        return ActGrad(value.block, value.microbatch)
    raise ValueError(f"only activations have a gradient that is handed on; got {value}")


PASSES = (Load, Forward, Loss, Backward, BackwardInput, BackwardWeight, ForwardPart, BackwardPart)
"""The passes that every machine knows."""


def _require_place(instruction: Load | Loss | Pass) -> None:
    """Raise ValueError unless block and microbatch are whole numbers from 0."""
    block = getattr(instruction, "block", getattr(instruction, "blocks", 0))
    if type(block) is int and type(instruction.microbatch) is int and min(block, instruction.microbatch) >= 0:
        return
    for name in ("block", "blocks", "microbatch"):
        checks.whole(name, getattr(instruction, name, 0), of=type(instruction).__name__)
