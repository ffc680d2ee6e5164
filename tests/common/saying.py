"""Orders that say given instructions, and the errors that they get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest

import simulator as sim
from simulator import (
    AllReduce,
    Grads,
    Instruction,
    Params,
)

G0, G1, P0 = Grads(0), Grads(1), Params(0)
MEAN = AllReduce(G0)


@dataclass(frozen=True)
class Say(sim.Order):
    """What each rank says; where there are more ranks than texts, the last is said by all that are left."""

    axis: ClassVar[str | None] = "all"
    texts: tuple[tuple[Instruction, ...], ...] = ()

    def program(self, me: sim.Rank) -> sim.Program:
        for instruction in self.texts[min(me.rank, len(self.texts) - 1)]:  # noqa: UP028 - some give results
            yield instruction


@dataclass(frozen=True)
class Live(Say):
    """The same, but checked while it runs, as if it used results."""

    static: ClassVar[bool] = False  # type: ignore[assignment]


def say(*texts: tuple[Instruction, ...]) -> Say:
    """A strategy of these texts."""
    return Say(texts=texts)


def error_of(strategy: sim.Order, ranks: int = 2) -> str:
    """The text of the error that validating raises."""
    with pytest.raises(sim.ProgramError) as caught:
        sim.validate(strategy, ranks)
    return str(caught.value)


def marked(text: str) -> list[str]:
    """The cells of the grid with a mark."""
    return [cell.strip()[3:] for line in text.splitlines() for cell in line.split("|") if ">> " in cell]
