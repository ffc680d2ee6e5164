"""Instructions that control: what runs beside the program, and what it waits for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .communicating import Recv
from .instruction import Instruction
from .values import Value


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
