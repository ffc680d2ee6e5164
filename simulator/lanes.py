"""Lanes of messages: what a collective sends, and what each of its messages waits for.

A lane carries messages from one rank to another, one at a time. All lanes of a collective are its script.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

Needs = tuple[tuple[int, int], ...]
"""(lane, ahead): message k waits until its sender has received message k - ahead of that lane, at most its last."""


@dataclass(frozen=True, slots=True)
class Lane:
    """``count`` messages from ``source`` to ``target``, each with a ``share`` of the value.

    ``stage`` counts the parts of an algorithm that follow one another. ``behind``: the lane, if any, whose message of
    the same number must have left before, since a rank sends one after another.
    """

    source: int
    target: int
    share: float
    count: int
    needs: Needs = ()
    stage: int = 0
    behind: int | None = None


@dataclass(frozen=True)
class Script:
    """The lanes of a collective. ``depths``: how many messages follow one another in each stage."""

    lanes: tuple[Lane, ...]
    depths: tuple[int, ...]


class Writer:
    """Lanes as they are written, stage after stage."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []
        self.depths: list[int] = []
        self.before: dict[int, Needs] = {}

    def lane(
        self, source: int, target: int, share: float, count: int, needs: Needs = (), behind: int | None = None
    ) -> int:
        """One lane, in the present stage: its sender has received all of the stage before. Gives its number."""
        needs += self.before.get(source, ())
        self.lanes.append(Lane(source, target, share, count, needs, len(self.depths), behind))
        return len(self.lanes) - 1

    def end_stage(self, depth: int) -> None:
        """What is written next waits for all that a rank receives in this stage."""
        into: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for number, lane in enumerate(self.lanes):
            if lane.stage == len(self.depths):
                into[lane.target].append((number, 1 - lane.count))
        self.before |= {rank: tuple(needs) for rank, needs in into.items()}
        self.depths.append(depth)

    def script(self) -> Script:
        """All that was written."""
        return Script(tuple(self.lanes), tuple(self.depths))

    def ring(self, order: Sequence[int], share: float, passes: int) -> None:
        """Each of n parts goes round, one hop after the other: what a rank sends is what it received before."""
        n, first = len(order), len(self.lanes)
        for place, rank in enumerate(order if n > 1 else ()):
            needs = ((first + (place - 1) % n, 1),)
            self.lane(rank, order[(place + 1) % n], share / n, passes * (n - 1), needs)
