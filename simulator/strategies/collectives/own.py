"""An all-reduce of one's own: a function that yields messages and additions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...program import AllReduce
from ...rank import Rank
from ...stack import Layer, Rules
from ...values import Value
from .group import Group, Written, all_reduce_by, in_place_of


@dataclass(frozen=True)
class AllReduceBy(Layer):
    """Writes out AllReduce with a function of one's own, after which every rank has the sum; the mean is taken care of.

    - ``program``: ``program(group, value)`` yields instructions; see ``Group`` for who takes part.
    - ``over``: the axis whose collectives it writes out; None: all.

    Raises ValueError when ``program`` is no function.

    >>> def everybody_to_everybody(group, value):
    ...     others = [rank for rank in range(group.size) if rank != group.at]
    ...     for other in others:
    ...         yield group.send(value, other)
    ...     for other in others:
    ...         yield from group.add(value, other)
    >>> validate(stack(DataParallel(), AllReduceBy(everybody_to_everybody)), ranks=3)
    """

    program: Callable[[Group, Value], Written]
    over: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.program):
            raise ValueError(f"program is a function (group, value) that yields instructions; got {self.program!r}")

    def rules(self, me: Rank) -> Rules:
        return in_place_of({AllReduce: all_reduce_by(self.program)}, me, self.over)

    def __str__(self) -> str:
        over = f", over={self.over!r}" if self.over else ""
        return f"AllReduceBy({getattr(self.program, '__name__', type(self.program).__name__)}{over})"

    def __repr__(self) -> str:
        return str(self)
