"""The instruction set: what a program can say.

A program is a generator, one per rank, that yields instructions. Both machines interpret the same text: the
virtual one (``simulator.virtual``) and the real one (``lab.wall``).  Every instruction is a small frozen
dataclass that names the values it reads and writes, so a program can be listed, checked and rewritten before
any machine runs. Two instructions are equal when they say the same; the numbers that a program reads from results
(versions, staleness) do not count.

    >>> from simulator import Forward
    >>> Forward(2, microbatch=1)
    Forward(block=2, microbatch=1)
    >>> print(Forward(2, microbatch=1).reads[1])
    Act(2, mb 1)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from .values import Act, ActGrad, Chunk, Grads, Nothing, Params, Target, Value

ANY = -1
"""As the source of a Recv: whoever comes first."""


class Instruction:
    """One thing that a rank does. Abstract: use one of the classes below.

    ``reads`` and ``writes`` are the values it touches. ``makes`` lists the kinds of value that an instruction of
    this type can create from nothing; a layer that looks after such a kind refuses types it has no rule for.
    """

    __slots__ = ()
    makes: ClassVar[tuple[type[Value], ...]] = ()
    reads: tuple[Value, ...] = ()
    writes: tuple[Value, ...] = ()


# ---------------------------------------------------------------- compute


@dataclass(frozen=True)
class Load(Instruction):
    """Fetch this rank's share of a microbatch: inputs ``Act(0, microbatch)`` and targets."""

    microbatch: int = 0

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

    ``seconds`` is what it costs on the virtual clock. The function is called where tensors are, and only there.
    """

    function: object
    reads: tuple[Value, ...] = ()
    writes: tuple[Value, ...] = ()
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"Compute {getattr(self.function, '__name__', 'function')}"


@dataclass(frozen=True)
class Free(Instruction):
    """Forget a value: activations are dropped, gradients become zero again."""

    value: Value

    @property
    def writes(self) -> tuple[Value, ...]:  # type: ignore[override]
        return (self.value,)

    def __str__(self) -> str:
        return f"Free {self.value}"


# ---------------------------------------------------------------- communication


@dataclass(frozen=True)
class Collective(Instruction):
    """Something that all ranks along an axis of the rank grid do together. Abstract: use a subclass."""

    value: Value
    over: str = "world"

    @property
    def reads(self) -> tuple[Value, ...]:  # type: ignore[override]
        return (self.value,)

    @property
    def writes(self) -> tuple[Value, ...]:  # type: ignore[override]
        return (self.value,)

    def __str__(self) -> str:
        return f"{type(self).__name__} {self.value} over {self.over}"


@dataclass(frozen=True)
class AllReduce(Collective):
    """Every rank ends with the mean (``op="mean"``) or the sum (``op="sum"``) of the value over the axis."""

    op: str = "mean"

    def __post_init__(self) -> None:
        check_op(self.op)


@dataclass(frozen=True)
class ReduceScatter(Collective):
    """Rank i of n along the axis ends with the mean (or sum) in ``Chunk(value, i, n)``; the rest keeps its own."""

    op: str = "mean"

    def __post_init__(self) -> None:
        check_op(self.op)


@dataclass(frozen=True)
class AllGather(Collective):
    """Rank i of n gives ``Chunk(value, i, n)``; every rank ends with the whole value."""


@dataclass(frozen=True)
class Broadcast(Collective):
    """Every rank ends with the value of the rank at position ``root`` of the axis."""

    root: int = 0


@dataclass(frozen=True)
class Barrier(Collective):
    """Nobody goes on before everybody is here."""

    value: Value = Nothing()


def check_op(op: str) -> None:
    """Refuse a reduction that the machines do not know."""
    if op not in ("mean", "sum"):
        raise ValueError(f"a reduction is one of 'mean', 'sum'; got op={op!r}")


@dataclass(frozen=True)
class Send(Instruction):
    """Send a snapshot of ``value`` to position ``to`` of axis ``over``; does not wait for its arrival.

    Messages from one rank to another arrive in the order in which they were sent.
    """

    value: Value
    to: int
    over: str = "world"
    version: int = field(default=0, compare=False)

    @property
    def reads(self) -> tuple[Value, ...]:  # type: ignore[override]
        return (self.value,)

    def __str__(self) -> str:
        return f"Send {self.value} to {self.over} {self.to}"


@dataclass(frozen=True)
class Recv(Instruction):
    """Wait for ``value`` from position ``source`` of axis ``over`` (or from ``ANY``) and store it.

    It is stored under its own name, or under ``into``. Yielding it gives the program a ``Message``.
    """

    value: Value
    source: int
    over: str = "world"
    into: Value | None = None

    @property
    def stored(self) -> Value:
        """The name under which the value is stored."""
        return self.into or self.value

    @property
    def writes(self) -> tuple[Value, ...]:  # type: ignore[override]
        return (self.stored,)

    def __str__(self) -> str:
        return f"Recv {self.value} from {'any' if self.source == ANY else f'{self.over} {self.source}'}"


@dataclass(frozen=True)
class Message:
    """What a Recv gives the program: who sent it, which version it carries, and whether it holds a value.

    ``abandoned`` is true when an ``Until`` gave up its work because this message came first.
    """

    source: int
    version: int
    empty: bool = False
    abandoned: bool = False


# ---------------------------------------------------------------- control


def as_program(what: Instruction | Iterable[Instruction]) -> tuple[Instruction, ...]:
    """One instruction or several, always as a tuple."""
    return (what,) if isinstance(what, Instruction) else tuple(what)


@dataclass(frozen=True)
class Start(Instruction):
    """Put an instruction, or several as a sub-program, on a stream and go on at once.

    A stream runs what it is given one after another, in the order of the Starts. Sub-programs use no results.
    """

    what: tuple[Instruction, ...]
    on: str

    def __init__(self, what: Instruction | Iterable[Instruction], on: str):
        object.__setattr__(self, "what", as_program(what))
        object.__setattr__(self, "on", on)
        for instruction in self.what:
            if isinstance(instruction, (Wait, Until)):
                raise ValueError(f"a sub-program on a stream waits for nothing but its own messages; got {instruction}")

    def __str__(self) -> str:
        return f"Start {'; '.join(map(str, self.what))} on {self.on}"


@dataclass(frozen=True)
class Wait(Instruction):
    """Wait until everything started that touches ``value`` is done; without a value, until everything is."""

    value: Value | None = None

    def __str__(self) -> str:
        return f"Wait {self.value}" if self.value else "Wait"


@dataclass(frozen=True)
class Until(Instruction):
    """Do ``what`` until the message of ``recv`` is here; what is not done by then is abandoned.

    When ``what`` ends first, it waits for the message. It gives the program that message.
    """

    recv: Recv
    what: tuple[Instruction, ...]

    def __init__(self, recv: Recv, what: Instruction | Iterable[Instruction]):
        object.__setattr__(self, "recv", recv)
        object.__setattr__(self, "what", as_program(what))

    def __str__(self) -> str:
        return f"Until {self.recv}: {'; '.join(map(str, self.what))}"


@dataclass(frozen=True)
class Record(Instruction):
    """Note a number under a name: it becomes a sample of the Run."""

    name: str
    value: float = field(compare=False)

    def __str__(self) -> str:
        return f"Record {self.name}"


def gradients_of(params: Value) -> Value:
    """The gradients that belong to parameters: ``Params(b)`` gives ``Grads(b)``, a chunk the same chunk."""
    if isinstance(params, Chunk):
        return Chunk(gradients_of(params.value), params.index, params.of)
    if isinstance(params, Params):
        return Grads(params.blocks)
    raise ValueError(f"only Params or a Chunk of Params have gradients; got {params}")
