"""Orders for tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import simulator as sim


@dataclass(frozen=True)
class Only(sim.Order):
    """A program that says these instructions on every rank."""

    axis: ClassVar[str | None] = "all"
    what: tuple[sim.Instruction, ...] = ()

    def program(self, me: sim.Rank) -> sim.Program:
        yield from self.what
