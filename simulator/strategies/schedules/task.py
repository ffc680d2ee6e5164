"""What a schedule is made of: tasks, and what it asks of the number of chunks, ranks and microbatches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Task(NamedTuple):
    """One thing that a rank of a pipeline does: ``Task("F", 0)`` is the forward pass of microbatch 0.

    ``what`` is "F" (forward), "B" (backward), "I" (the half of backward that gives the gradient of the input) or "W"
    (its other half, the gradients of the parameters); ``chunk`` says which of the rank's chunks of the model.
    """

    what: str
    microbatch: int
    chunk: int = 0


Tasks = Callable[[int, int, int, int], Iterator[Task]]
"""(rank's position, ranks, microbatches, chunks) -> what this rank does, in order."""


def anything(ranks: int, microbatches: int) -> None:
    """Refuses nothing."""


@dataclass(frozen=True)
class Schedule:
    """A schedule and what it asks for.

    - ``tasks``: what each rank does.
    - ``chunks``: how many chunks of the model a rank has; ``more``: or any larger number.
    - ``placement``: how chunks lie on ranks, one of ``PLACEMENTS``.
    - ``check``: raises ValueError where it cannot run on so many ranks with so many microbatches.
    """

    tasks: Tasks
    chunks: int = 1
    more: bool = False
    placement: str = "loop"
    check: Callable[[int, int], None] = anything
