"""Names of values: what an instruction reads and writes.

A program never holds a tensor. It *names* values, so that one text can be timed without tensors, run with
tensors under the virtual clock, or run for real.  ``Act(3, 1)`` is "what enters block 3 for microbatch 1".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import fsum

from . import checks


class Value:
    """The name of something that a rank holds. Abstract: use one of the classes below."""

    __slots__ = ()


def as_blocks(blocks: int | tuple[int, ...]) -> tuple[int, ...]:
    """A block or several blocks, always as a tuple. Raises ValueError unless they are whole numbers from 0."""
    if type(blocks) is int and blocks >= 0:  # as most are
        return (blocks,)
    found = tuple(blocks) if isinstance(blocks, (tuple, list, range)) else (blocks,)
    if {*map(type, found)} - {int} or min(found, default=0) < 0:
        found = tuple(checks.whole("block", block) for block in found)
    return found


def require_value(name: str, value: object) -> None:
    """Raise ValueError unless it is the name of a value."""
    if not isinstance(value, Value):
        checks.kind(name, value, Value, "the name of a value, such as Grads(0)")


@dataclass(frozen=True)
class _OfBlocks(Value):
    blocks: tuple[int, ...]

    def __init__(self, blocks: int | tuple[int, ...]):
        object.__setattr__(self, "blocks", as_blocks(blocks))

    def __str__(self) -> str:
        return f"{type(self).__name__}{_listed(self.blocks)}"


@dataclass(frozen=True, init=False)
class Params(_OfBlocks):
    """The parameters of one block or of several, in the order given.

    >>> print(Params(3), Params(range(6)))
    Params(3) Params(0..5)
    """


@dataclass(frozen=True, init=False)
class Grads(_OfBlocks):
    """The gradients of one block or of several, summed over the microbatches seen so far."""


@dataclass(frozen=True)
class _Between(Value):
    block: int
    microbatch: int = 0

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.block}, mb {self.microbatch})"


@dataclass(frozen=True)
class Act(_Between):
    """What enters ``block`` for one microbatch; ``Act(number of blocks)`` is what the loss reads.

    >>> print(Act(3, microbatch=1))
    Act(3, mb 1)
    """


@dataclass(frozen=True)
class ActGrad(_Between):
    """The gradient of the loss with respect to ``Act(block, microbatch)``."""


@dataclass(frozen=True)
class _Inside(Value):
    block: int
    microbatch: int
    at: int

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.block}.{self.at}, mb {self.microbatch})"


@dataclass(frozen=True)
class Inner(_Inside):
    """What enters part ``at`` of a block that is run in parts; see ``ForwardPart``."""


@dataclass(frozen=True)
class InnerGrad(_Inside):
    """The gradient of the loss with respect to ``Inner(block, microbatch, at)``."""


@dataclass(frozen=True)
class Replicated(Value):
    """The part of one block's parameters or gradients that all ranks along ``over`` hold, such as a LayerNorm's."""

    value: Params | Grads
    over: str

    def __post_init__(self) -> None:
        checks.kind("value", self.value, (Params, Grads), "Params or Grads of one block")
        checks.kind("over", self.over, str, "the name of an axis of the rank grid")

    def __str__(self) -> str:
        return f"{self.value} replicated over {self.over}"


@dataclass(frozen=True)
class Tied(Value):
    """Those parameters of a block, or their gradients, that a later block uses too: elements ``first`` to ``last``.

    A rank that has the block reads and writes them there; one that has only the later block has a copy of its own.
    """

    value: Params | Grads
    first: int
    last: int

    def __post_init__(self) -> None:
        checks.kind("value", self.value, (Params, Grads), "Params or Grads of the block that has them")
        checks.whole("first", self.first)
        if len(self.value.blocks) != 1 or checks.whole("last", self.last) < self.first:
            raise ValueError(f"tied parameters are a range of those of one block; got {self}")

    @property
    def block(self) -> int:
        """The block that they belong to: the first that uses them."""
        return self.value.blocks[0]

    @property
    def gradient(self) -> Tied:
        """The gradients of these parameters."""
        return Tied(Grads(self.value.blocks), self.first, self.last)

    def __str__(self) -> str:
        return f"{self.value}[{self.first}:{self.last}]"


@dataclass(frozen=True)
class Buffers(Value):
    """What a block keeps beside its parameters and does not learn, such as the running means of a BatchNorm."""

    block: int

    def __str__(self) -> str:
        return f"Buffers({self.block})"


@dataclass(frozen=True)
class Target(Value):
    """What the loss compares the output with, for one microbatch."""

    microbatch: int = 0

    def __str__(self) -> str:
        return f"Target(mb {self.microbatch})"


@dataclass(frozen=True)
class Ahead(Value):
    """Inputs or targets of a step that has not begun: what a loader fetches before anybody asks for it."""

    value: Act | Target
    step: int

    def __post_init__(self) -> None:
        checks.kind("value", self.value, (Act, Target), "inputs or targets: Act(0, microbatch) or Target(microbatch)")
        checks.whole("step", self.step, of="Ahead")

    def __str__(self) -> str:
        return f"{self.value} of step {self.step}"


@dataclass(frozen=True)
class Named(Value):
    """A buffer of the program's own, as large as what is stored in it. ``key`` tells several of one name apart.

    >>> print(Named("theirs", 3))
    theirs[3]
    """

    name: str
    key: int = 0

    def __post_init__(self) -> None:
        if type(self.name) is not str or type(self.key) is not int:  # quicker than the checks, which few need
            checks.kind("name", self.name, str, "a text, what a buffer is called")
            checks.comparable("key", self.key, "a number that tells buffers of one name apart")

    def __str__(self) -> str:
        return f"{self.name}[{self.key}]"


@dataclass(frozen=True)
class Chunk(Value):
    """Part ``index`` of ``of`` almost equal parts of a value's elements, laid end to end.

    Part i of n holds the elements from ``i*size//n`` up to ``(i+1)*size//n``. Raises ValueError for a part that does
    not exist.

    >>> print(Chunk(Grads((0, 1)), index=2, of=4))
    Grads(0, 1)[2/4]
    """

    value: Value
    index: int
    of: int

    def __post_init__(self) -> None:
        require_value("value", self.value)
        checks.whole("of", self.of, least=1)
        if checks.whole("index", self.index) >= self.of:
            raise ValueError(f"chunks are numbered from 0 to of-1; got index={self.index}, of={self.of}")

    def __str__(self) -> str:
        return f"{self.value}[{self.index}/{self.of}]"


@dataclass(frozen=True)
class Nothing(Value):
    """No bytes at all: a message that only tells. Sent ``instead`` of a value, whoever wants that value gets it."""

    instead: Value | None = None

    def __post_init__(self) -> None:
        if self.instead is not None:
            require_value("instead", self.instead)

    def __str__(self) -> str:
        return f"Nothing instead of {self.instead}" if self.instead else "Nothing"

    @property
    def stands_for(self) -> Value:
        """The name under which a Recv asks for it."""
        return self.instead or self


def bounds(size: int, index: int, of: int) -> tuple[int, int]:
    """First element and one past the last of part ``index`` of ``of``. ``bounds(10, 1, 4) == (2, 5)``."""
    return index * size // of, (index + 1) * size // of


def apportioned(size: int, weights: Sequence[float]) -> list[tuple[int, int]]:
    """First element and one past the last of parts in proportion to ``weights``, each end rounded.

    >>> apportioned(16, (3, 1))
    [(0, 12), (12, 16)]
    """
    total = fsum(weights)
    ends = [round(size * part / total) for part in accumulate(weights)]
    return list(zip([0, *ends], ends))


def overlap(a: Value, b: Value) -> bool:
    """Whether two names may share memory (chunks of different division count as sharing)."""
    if isinstance(a, Chunk) and isinstance(b, Chunk) and a.of == b.of and a.value == b.value:
        return a.index == b.index
    a, b = whole(a), whole(b)
    if isinstance(a, (Params, Grads)) and type(a) is type(b):
        return not set(a.blocks).isdisjoint(b.blocks)  # type: ignore[attr-defined]
    return a == b


def whole(value: Value) -> Value:
    """The value that a part is part of; other values as they are."""
    while isinstance(value, (Chunk, Replicated, Tied)):
        value = value.value
    return value


def _listed(blocks: tuple[int, ...]) -> str:
    """Blocks as people write them: ``(3)``, ``(0..5)``, ``(0, 2)``."""
    if len(blocks) > 2 and {b - a for a, b in pairwise(blocks)} in ({1}, {-1}):
        return f"({blocks[0]}..{blocks[-1]})"
    return "(" + ", ".join(map(str, blocks)) + ")"
