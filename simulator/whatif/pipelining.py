"""How long a pipeline of uneven stages takes, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Hops(NamedTuple):
    """Messages between stages: ``each`` takes so long [s], and so long where others pass the same link, ``shared`` [s].

    ``busiest``: how long the busiest link is busy for all messages of one microbatch [s].
    """

    each: float = 0.0
    shared: float = 0.0
    busiest: float = 0.0


class Stage(NamedTuple):
    """A microbatch through all blocks of a rank [s]."""

    forward: float
    backward: float

    @property
    def both(self) -> float:
        """Forward and backward."""
        return self.forward + self.backward


def pipelined(stages: Sequence[Stage], hops: Hops, microbatches: int, chunks: int = 1) -> float:
    """The makespan of 1F1B, or with ``chunks`` of its interleaved form [s].

    Where all stages are alike and messages free, it is (m + p - 1)(F + B), or m(F + B) + (p - 1)(F + B)/v with v chunks
    (Narayanan et al. 2021, arXiv:2104.04473).

    >>> even = [Stage(1.0, 2.0)] * 4
    >>> pipelined(even, Hops(), 8), pipelined(even, Hops(), 8, chunks=2)
    (33.0, 28.5)
    """
    if len(stages) == 1:
        return microbatches * stages[0].both
    return one_by_one(stages, hops, microbatches) if chunks == 1 else interleaved(stages, hops, microbatches, chunks)


def one_by_one(stages: Sequence[Stage], hops: Hops, microbatches: int) -> float:
    """1F1B, from the last stage to the first. A stage has w = min(m, p - s) microbatches under way.

    With R, the way of a microbatch through all later stages and back, its last forward pass ends after

        wF, and where there are more, max(wF, F + R) + (m - w)·max(F + B, (F + R + B)/w)

    and its last backward pass after whatever is latest: R and B later; w·B later; or B after the next stage is done.
    """
    span, way, hop = 0.0, 0.0, hops.each
    for later, (forward, backward) in enumerate(reversed(stages)):
        held = min(microbatches, later + 1)
        begun = max(held * forward, forward + way)
        sent = held * forward
        if microbatches > held:
            round_trip = (forward + way + backward + 2 * later * (hops.shared - hop)) / held
            sent = begun + (microbatches - held) * max(forward + backward, round_trip, hops.busiest)
        own = max(sent + way + backward, max(begun, sent) + held * backward)
        span = max(own, forward + span + backward + 2 * hop) if later else own
        way += forward + backward + 2 * hop
    return span


def interleaved(stages: Sequence[Stage], hops: Hops, microbatches: int, chunks: int) -> float:
    """m·T + (p - 1)((F + B)/v + 2c).

    T is that of the slowest stage or of the busiest link, or what a round trip takes of what is under way: at most
    (v + 1)p - 1 visits to chunks, each of which comes back after all later chunks.
    """
    p, v = len(stages), chunks
    whole, slowest = sum(stage.both for stage in stages), max(stage.both for stage in stages)
    visits = sum((v - chunk) * whole / v + 2 * hops.shared * ((v - chunk) * p - 1) for chunk in range(v))
    each = max(slowest, hops.busiest, visits / ((v + 1) * p - 1))
    return microbatches * each + (p - 1) * (whole / p / v + 2 * hops.each)
