"""Instructions that communicate: collectives along an axis of the rank grid, and messages from rank to rank."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import checks
from .instruction import ANY, Instruction, require_axis, require_into, require_position
from .values import Nothing, Value, require_value


@dataclass(frozen=True)
class Collective(Instruction):
    """Something that all ranks along an axis of the rank grid do together. Abstract: use a subclass."""

    value: Value
    over: str = "world"

    def __post_init__(self) -> None:
        require_value("value", self.value)
        require_axis(self.over)

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.value,)

    @property
    def writes(self) -> tuple[Value, ...]:
        return (self.value,)

    def __str__(self) -> str:
        return f"{type(self).__name__} {self.value} over {self.over}"


@dataclass(frozen=True)
class AllReduce(Collective):
    """Every rank ends with the mean (``op="mean"``) or the sum (``op="sum"``) of the value over the axis.

    Raises ValueError for another ``op``.

    >>> from simulator import Grads
    >>> print(AllReduce(Grads((0, 1)), over="data"))
    AllReduce Grads(0, 1) over data
    """

    op: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_op(self.op)


@dataclass(frozen=True)
class ReduceScatter(Collective):
    """Rank i of n along the axis ends with the mean (or sum) in ``Chunk(value, i, n)``; the rest keeps its own.

    With ``into``, its part of the rows is stored under that name instead (all dimensions but the last make rows).
    Raises ValueError for an ``op`` that is neither "mean" nor "sum".

    >>> from simulator import Grads
    >>> print(ReduceScatter(Grads(0), over="data"))
    ReduceScatter Grads(0) over data
    """

    op: str = "mean"
    into: Value | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_op(self.op)
        require_into(self.into)

    @property
    def writes(self) -> tuple[Value, ...]:
        return (self.into or self.value,)


@dataclass(frozen=True)
class AllGather(Collective):
    """Rank i of n gives ``Chunk(value, i, n)``; every rank ends with the whole value.

    With ``into``, every rank gives all of its value; what all gave, one after another along the first dimension, is
    stored under that name. ``ragged``: what the ranks give may differ in size, and they tell each other first.

    >>> from simulator import Params
    >>> print(AllGather(Params(3), over="data"))
    AllGather Params(3) over data
    """

    into: Value | None = None
    ragged: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_into(self.into)
        checks.flag("ragged", self.ragged)

    @property
    def writes(self) -> tuple[Value, ...]:
        return (self.into or self.value,)


@dataclass(frozen=True)
class AllToAll(Collective):
    """Every rank sends some rows of ``value`` to every rank: ``counts`` names how many to each, in order.

    What arrives, in the order of the senders, is stored under ``into``, and how many rows came from each under
    ``arrived``. The counts are known only when it runs: a model that is only timed must say how tokens are routed.
    """

    counts: Value = Nothing()
    into: Value = Nothing()
    arrived: Value = Nothing()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("counts", "into", "arrived"):
            require_value(name, getattr(self, name))
            if isinstance(getattr(self, name), Nothing):
                raise ValueError(f"an AllToAll names counts, into and arrived; got {name}={getattr(self, name)!r}")

    @property
    def reads(self) -> tuple[Value, ...]:
        return self.value, self.counts

    @property
    def writes(self) -> tuple[Value, ...]:
        return self.into, self.arrived


@dataclass(frozen=True)
class Broadcast(Collective):
    """Every rank ends with the value of the rank at position ``root`` of the axis.

    >>> from simulator import Params
    >>> print(Broadcast(Params(0), over="data", root=1))
    Broadcast Params(0) over data
    """

    root: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_position("root", self.root)


@dataclass(frozen=True)
class Barrier(Collective):
    """Nobody goes on before everybody is here.

    >>> print(Barrier())
    Barrier Nothing over world
    """

    value: Value = Nothing()


def check_op(op: str) -> None:
    """Refuse a reduction that the machines do not know."""
    if op not in ("mean", "sum"):
        raise ValueError(f"a reduction is one of 'mean', 'sum'; got op={op!r}")


@dataclass(frozen=True)
class Send(Instruction):
    """Send a snapshot of ``value`` to position ``to`` of axis ``over``; does not wait for its arrival.

    Messages are matched by name: a Recv takes the first message of its value, whatever else was sent before it.
    ``version`` counts the updates in what is sent; the Message of the Recv carries it along.

    >>> from simulator import Act
    >>> print(Send(Act(3, 1), to=1, over="pipeline"))
    Send Act(3, mb 1) to pipeline 1
    """

    value: Value
    to: int
    over: str = "world"
    version: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        require_value("value", self.value)
        require_axis(self.over)
        require_position("to", self.to)
        if type(self.version) is not int:
            checks.whole("version", self.version, of="Send")

    @property
    def reads(self) -> tuple[Value, ...]:
        return (self.value,)

    def __str__(self) -> str:
        return f"Send {self.value} to {self.over} {self.to}"


@dataclass(frozen=True)
class Recv(Instruction):
    """Wait for ``value`` from position ``source`` of axis ``over`` (or from ``ANY``) and store it.

    It is stored under its own name, or under ``into``. Yielding it gives the program a ``Message``.

    >>> from simulator import Act, Grads
    >>> print(Recv(Act(3, 1), source=0, over="pipeline"), Recv(Grads(0), source=ANY), sep=", ")
    Recv Act(3, mb 1) from pipeline 0, Recv Grads(0) from any
    """

    value: Value
    source: int
    over: str = "world"
    into: Value | None = None

    def __post_init__(self) -> None:
        require_value("value", self.value)
        require_axis(self.over)
        require_position("source", self.source, least=ANY)
        require_into(self.into)

    @property
    def stored(self) -> Value:
        """The name under which the value is stored."""
        return self.into or self.value

    @property
    def writes(self) -> tuple[Value, ...]:
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
