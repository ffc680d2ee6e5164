"""Instructions that control: what runs beside the program, and what it waits for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from numbers import Real

from . import checks
from .communicating import Recv
from .instruction import ANY, Instruction
from .passes import Load
from .values import Value, require_value

WHAT = "an instruction, or several in a list"


def as_program(what: Instruction | Iterable[Instruction]) -> tuple[Instruction, ...]:
    """One instruction or several, always as a tuple."""
    program = [what] if isinstance(what, Instruction) else checks.several("what", what, WHAT)
    for instruction in program:
        checks.kind("what", instruction, Instruction, WHAT)
    return tuple(program)


@dataclass(frozen=True)
class Start(Instruction):
    """Put an instruction, or several as a sub-program, on a stream and go on at once.

    A stream runs what it is given one after another, in the order of the Starts. Sub-programs use no results; they
    neither wait for streams nor start any. A stream has any name but "compute", "until" and "to …", which are taken.
    Raises ValueError for those names, and for a Wait, an Until or a Start inside.

    >>> from simulator import AllReduce, Grads
    >>> print(Start(AllReduce(Grads(0)), on="data"))
    Start AllReduce Grads(0) over world on data
    """

    what: tuple[Instruction, ...]
    on: str

    def __init__(self, what: Instruction | Iterable[Instruction], on: str):
        object.__setattr__(self, "what", as_program(what))
        object.__setattr__(self, "on", on)
        for instruction in self.what:
            if isinstance(instruction, (Wait, Until)):
                raise ValueError(f"a sub-program on a stream waits for nothing but its own messages; got {instruction}")
            if isinstance(instruction, Start):
                raise ValueError(f"a sub-program starts nothing; got {instruction}: put what it starts in its place")
        if not isinstance(on, str) or on in ("", "compute", "until") or on.startswith("to "):
            raise ValueError(f"a stream has a name that is not taken by the machines, such as 'data'; got on={on!r}")

    @property
    def step(self) -> int | None:
        """The step that it belongs to, where that is not the one in which it is started: data are loaded ahead."""
        return next((one.step for one in self.what if isinstance(one, Load) and one.step is not None), None)

    def __str__(self) -> str:
        return f"Start {'; '.join(map(str, self.what))} on {self.on}"


@dataclass(frozen=True)
class Wait(Instruction):
    """Wait until everything started that touches ``value`` is done; without a value, until everything is.

    Data that are loaded ahead of their step are waited for by their name only.

    >>> from simulator import Grads
    >>> print(Wait(Grads(0)), Wait(), sep=", ")
    Wait Grads(0), Wait
    """

    value: Value | None = None

    def __post_init__(self) -> None:
        if self.value is not None:
            require_value("value", self.value)

    def __str__(self) -> str:
        return f"Wait {self.value}" if self.value else "Wait"


@dataclass(frozen=True)
class Until(Instruction):
    """Do ``what`` until the message of ``recv`` is here; what is not done by then is abandoned.

    When ``what`` ends first, it waits for the message. It gives the program that message. The ``recv`` names its
    source, so that a replay need only know where the work stopped. Raises ValueError where it does not, and for an
    Until inside.

    >>> from simulator import Forward, Params
    >>> print(Until(Recv(Params(0), source=0), [Forward(0), Forward(1)]))
    Until Recv Params(0) from world 0: Forward 0 mb0; Forward 1 mb0
    """

    recv: Recv
    what: tuple[Instruction, ...]

    def __init__(self, recv: Recv, what: Instruction | Iterable[Instruction]):
        object.__setattr__(self, "recv", recv)
        object.__setattr__(self, "what", as_program(what))
        checks.kind("recv", recv, Recv, "the Recv of the message that ends the work")
        if recv.source == ANY:
            raise ValueError(f"an Until waits for one sender: give its Recv a source; got {recv}")
        for instruction in self.what:
            if isinstance(instruction, Until):
                raise ValueError(f"an Until waits for one message: its work holds no other Until; got {instruction}")

    def __str__(self) -> str:
        return f"Until {self.recv}: {'; '.join(map(str, self.what))}"


@dataclass(frozen=True)
class Record(Instruction):
    """Note a number under a name: it becomes a sample of the Run.

    >>> print(Record("staleness", 3))
    Record staleness
    """

    name: str
    value: float = field(compare=False)

    def __post_init__(self) -> None:
        checks.kind("name", self.name, str, "what a number is called in the samples of a Run")
        checks.kind("value", self.value, Real, "a number, which becomes a sample of a Run")

    def __str__(self) -> str:
        return f"Record {self.name}"
