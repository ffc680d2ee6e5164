"""Lanes of messages: what a collective sends, and what each of its messages waits for.

A lane carries messages from one rank to another, one at a time. All lanes of a collective are its script. It has
stages: a rank begins one when it has sent and received all of those before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Needs = tuple[tuple[int, int], ...]
"""(lane, ahead): message k waits until its sender has received message k - ahead of that lane of the same stage."""


@dataclass(frozen=True, slots=True)
class Lane:
    """``count`` messages from ``source`` to ``target``, each with a ``share`` of the value.

    A rank sends the next one when the last has arrived, as in Hockney's model (1994): a message of ``size`` takes
    latency + size/bandwidth. The pieces of one message ``stream``: the next one goes as soon as the last has left, so
    that latency is paid once.
    """

    source: int
    target: int
    share: float
    count: int = 1
    needs: Needs = ()
    stage: int = 0
    streams: bool = False


@dataclass(frozen=True)
class Script:
    """The lanes of a collective, stage by stage, each after those of its stage that it needs, but in rings.

    ``depths``: how many messages follow one another in each stage.
    """

    lanes: tuple[Lane, ...]
    depths: tuple[int, ...]


class Writer:
    """Lanes as they are written, stage after stage."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []
        self.depths: list[int] = []

    def lane(self, source: int, target: int, share: float, count: int = 1, needs: Needs = ()) -> int:
        """One lane, in the present stage. Gives its number."""
        self.lanes.append(Lane(source, target, share, count, needs, len(self.depths)))
        return len(self.lanes) - 1

    def pieces(self, source: int, target: int, share: float, count: int, after: Sequence[int] = ()) -> int:
        """One message in so many pieces, each of which waits for the same piece on other lanes. Gives its number."""
        needs = tuple((lane, 0) for lane in after)
        self.lanes.append(Lane(source, target, share / count, count, needs, len(self.depths), True))
        return len(self.lanes) - 1

    def end_stage(self, depth: int) -> None:
        """What is written next waits for all that a rank sends and receives in this stage."""
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
