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


@dataclass(frozen=True)
class Beside(sim.Order):
    """A collective on a stream, from when a rank has computed; then some ranks send to others beside it."""

    axis: ClassVar[str | None] = "all"
    what: tuple[sim.Instruction, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()

    def program(self, me: sim.Rank) -> sim.Program:
        yield sim.Forward(0)
        yield sim.Start(self.what, on="data")
        yield sim.Forward(1)
        for number, (source, target) in enumerate(self.pairs):
            if me.rank == source:
                yield sim.Copy(sim.Grads(1), sim.Named("sent", number))
                yield sim.Send(sim.Named("sent", number), target, "all")
        for number, (source, target) in enumerate(self.pairs):
            if me.rank == target:
                yield sim.Recv(sim.Named("sent", number), source, "all")
        yield sim.Wait()
