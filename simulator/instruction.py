"""What every instruction is, and what it may say of where others stand."""

from __future__ import annotations

from numbers import Integral
from typing import ClassVar

from . import checks
from .values import Value, require_value

ANY = -1
"""As the source of a Recv: whoever comes first."""


class Instruction:
    """One thing that a rank does. Abstract: use one of the classes below.

    ``reads`` and ``writes`` are the values it touches. ``makes`` lists the kinds of value that an instruction of
    this type can create from nothing; a layer that looks after such a kind refuses types it has no rule for.
    """

    __slots__ = ()
    makes: ClassVar[tuple[type[Value], ...]] = ()

    @property
    def reads(self) -> tuple[Value, ...]:
        """The values that it reads; none unless its type says so."""
        return ()

    @property
    def writes(self) -> tuple[Value, ...]:
        """The values that it writes; none unless its type says so."""
        return ()


def require_axis(over: object) -> None:
    """Raise ValueError unless it can be the name of an axis."""
    if type(over) is not str:
        checks.kind("over", over, str, 'the name of an axis of the rank grid, such as "data", or "world" for all ranks')


def require_position(name: str, position: object, least: int = 0) -> None:
    """Raise ValueError unless it can be a position along an axis; ANY is one where ``least`` says so."""
    if type(position) is int and position >= least:  # as most are
        return
    if isinstance(position, bool) or not isinstance(position, Integral) or position < least:
        anybody = ", or ANY" if least == ANY else ""
        raise ValueError(
            f'{name} is a position along an axis, a whole number from 0, such as me.at("data") + 1{anybody};'
            f" got {name}={checks.shown(position)}"
        )


def require_into(into: object) -> None:
    """Raise ValueError unless it is the name of a value, or None."""
    if into is not None:
        require_value("into", into)
