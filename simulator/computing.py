"""Instructions that compute: they read and write the values of one rank."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from . import checks
from .instruction import Instruction
from .values import Act, ActGrad, Chunk, Grads, Params, Target, Value, require_value


def require_place(instruction: Load | Forward | Loss | Backward) -> None:
    """Raise ValueError unless block and microbatch are whole numbers from 0."""
    for name in ("block", "blocks", "microbatch"):
        checks.whole(name, getattr(instruction, name, 0), of=type(instruction).__name__)


@dataclass(frozen=True)
class Load(Instruction):
    """Fetch this rank's share of a microbatch: inputs ``Act(0, microbatch)`` and targets."""

    microbatch: int = 0

    def __post_init__(self) -> None:
        if type(self.microbatch) is not int or self.microbatch < 0:
            require_place(self)

    @property
    def writes(self) -> tuple[Value, ...]:  # type: ignore[override]
        return Act(0, self.microbatch), Target(self.microbatch)

    def __str__(self) -> str:
        return f"Load mb{self.microbatch}"


@dataclass(frozen=True)
class Forward(Instruction):
    """Run one block forward: from ``Act(block)`` to ``Act(block + 1)``."""

    block: int
    microbatch: int = 0

    def __post_init__(self) -> None:
        if type(self.block) is not int or type(self.microbatch) is not int or self.block < 0 or self.microbatch < 0:
            require_place(self)

    @property
    def reads(self) -> tuple[Value, ...]:  # type: ignore[override]
        return Params(self.block), Act(self.block, self.microbatch)

    @property
    def writes(self) -> tuple[Value, ...]:  # type: ignore[override]
        return (Act(self.block + 1, self.microbatch),)

    def __str__(self) -> str:
        return f"Forward {self.block} mb{self.microbatch}"


@dataclass(frozen=True)
class Loss(Instruction):
    """Compare the output ``Act(blocks)`` with the targets; note the loss; start the backward pass."""

    blocks: int
    microbatch: int = 0

    def __post_init__(self) -> None:
        if type(self.blocks) is not int or type(self.microbatch) is not int or self.blocks < 0 or self.microbatch < 0:
            require_place(self)

    @property
    def reads(self) -> tuple[Value, ...]:  # type: ignore[override]
        return Act(self.blocks, self.microbatch), Target(self.microbatch)

    @property
    def writes(self) -> tuple[Value, ...]:  # type: ignore[override]
        return (ActGrad(self.blocks, self.microbatch),)

    def __str__(self) -> str:
        return f"Loss mb{self.microbatch}"


@dataclass(frozen=True)
class Backward(Instruction):
    """Run one block backward: adds to ``Grads(block)`` and gives ``ActGrad(block)``."""

    makes: ClassVar[tuple[type[Value], ...]] = (Grads,)
    block: int
    microbatch: int = 0

    def __post_init__(self) -> None:
        if type(self.block) is not int or type(self.microbatch) is not int or self.block < 0 or self.microbatch < 0:
            require_place(self)

    @property
    def reads(self) -> tuple[Value, ...]:  # type: ignore[override]
        return Params(self.block), Act(self.block, self.microbatch), ActGrad(self.block + 1, self.microbatch)

    @property
    def writes(self) -> tuple[Value, ...]:  # type: ignore[override]
        return Grads(self.block), ActGrad(self.block, self.microbatch)

    def __str__(self) -> str:
        return f"Backward {self.block} mb{self.microbatch}"


@dataclass(frozen=True)
class Update(Instruction):
    """Apply the rule to parameters (``Params(…)`` or a chunk of them) and set their gradients to zero.

    ``staleness`` counts the updates since the gradient's parameters were read; ``since`` names a copy of those
    parameters, for rules that compensate the delay.
    """

    makes: ClassVar[tuple[type[Value], ...]] = (Params,)
    params: Value
    staleness: int = field(default=0, compare=False)
    since: Value | None = None

    def __post_init__(self) -> None:
        require_value("params", self.params)
        if self.since is not None:
            require_value("since", self.since)

    @property
    def reads(self) -> tuple[Value, ...]:  # type: ignore[override]
        return (self.since,) if self.since else ()

    @property
    def writes(self) -> tuple[Value, ...]:  # type: ignore[override]
        return self.params, gradients_of(self.params)

    def __str__(self) -> str:
        return f"Update {self.params}"


@dataclass(frozen=True)
class Reduce(Instruction):
    """Add ``scale * source`` to ``target``: what a server does with a gradient that has arrived."""

    target: Value
    source: Value
    scale: float = 1.0

    def __post_init__(self) -> None:
        require_value("target", self.target)
        require_value("source", self.source)

    @property
    def reads(self) -> tuple[Value, ...]:  # type: ignore[override]
        return self.target, self.source

    @property
    def writes(self) -> tuple[Value, ...]:  # type: ignore[override]
        return (self.target,)

    def __str__(self) -> str:
        return f"Reduce {self.target} += {self.scale:.4g} {self.source}"


@dataclass(frozen=True)
class Copy(Instruction):
    """Store a copy of ``source`` under the name ``target``."""

    source: Value
    target: Value

    def __post_init__(self) -> None:
        require_value("source", self.source)
        require_value("target", self.target)

    @property
    def reads(self) -> tuple[Value, ...]:  # type: ignore[override]
        return (self.source,)

    @property
    def writes(self) -> tuple[Value, ...]:  # type: ignore[override]
        return (self.target,)

    def __str__(self) -> str:
        return f"Copy {self.source} to {self.target}"


@dataclass(frozen=True)
class Compute(Instruction):
    """Any other maths: ``function(*tensors of reads)`` gives the tensors of ``writes`` (a tuple, or one tensor).

    ``reads`` and ``writes`` may be given as one value or several in a list.

    ``seconds`` is what it costs on the virtual clock. The function is called where tensors are, and only there.
    """

    function: object
    reads: tuple[Value, ...] = ()
    writes: tuple[Value, ...] = ()
    seconds: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", as_values("reads", self.reads))
        object.__setattr__(self, "writes", as_values("writes", self.writes))
        checks.number("seconds", self.seconds, least=0, of="Compute")
        if not callable(self.function):
            raise ValueError(f"the maths of a Compute is a function of tensors; got function={self.function!r}")

    def __str__(self) -> str:
        return f"Compute {getattr(self.function, '__name__', 'function')}"


@dataclass(frozen=True)
class Free(Instruction):
    """Forget a value: activations are dropped, gradients become zero again."""

    value: Value

    def __post_init__(self) -> None:
        require_value("value", self.value)

    @property
    def writes(self) -> tuple[Value, ...]:  # type: ignore[override]
        return (self.value,)

    def __str__(self) -> str:
        return f"Free {self.value}"


def as_values(name: str, values: object) -> tuple[Value, ...]:
    """One value or several, always as a tuple."""
    found = tuple(values) if isinstance(values, (tuple, list)) else (values,)
    for value in found:
        require_value(name, value)
    return found


def gradients_of(params: Value) -> Value:
    """The gradients that belong to parameters: ``Params(b)`` gives ``Grads(b)``, a chunk the same chunk."""
    if isinstance(params, Chunk):
        return Chunk(gradients_of(params.value), params.index, params.of)
    if isinstance(params, Params):
        return Grads(params.blocks)
    raise ValueError(f"only Params or a Chunk of Params have gradients; got {params}")


COMPUTING = (Load, Forward, Loss, Backward, Update, Reduce, Copy, Compute, Free)
"""What the machines can compute."""
