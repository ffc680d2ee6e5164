"""What every instruction is."""

from __future__ import annotations

from typing import ClassVar

from .values import Value


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
