"""Halving and doubling: add up ever smaller halves, then put them together again (Rabenseifner 2004).

2·log2 n·latency + 2(n-1)/n·size/bandwidth: as few bytes as a ring with fewer messages. Its partners are far away, which
costs nothing on a switch and much where links are shared.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...program import AllReduce
from ...rank import Rank
from ...stack import Layer, Rules
from ...values import Chunk, Value
from .doubling import folded
from .group import Group, Written, all_reduce_by, in_place_of


@dataclass(frozen=True)
class HalvingDoubling(Layer):
    """Writes out AllReduce as recursive halving and recursive doubling.

    ``over``: the axis whose collectives it writes out; None: all. ``theory.halving_doubling`` is its time. Where the
    number of ranks is no power of two, two messages more: see ``doubling.folded``.

    >>> grid = listing(stack(DataParallel(overlap=False), HalvingDoubling()), 2, Model.of_times(blocks=1, parameters=8))
    >>> grid.columns[0][4:8]
    ('Send Grads(0)[1/2] to data 1', 'Recv Grads(0)[0/2] from data 1', 'Reduce ...', 'Send Grads(0)[0/2] to data 1')
    """

    over: str | None = None

    def rules(self, me: Rank) -> Rules:
        return in_place_of({AllReduce: all_reduce_by(halving_doubling)}, me, self.over)


def halving_doubling(group: Group, value: Value) -> Written:
    """Halve on the way down, double on the way up."""
    return folded(halve_and_double, group, value)


def halve_and_double(group: Group, value: Value) -> Written:
    """For a power of two ranks; afterwards each has had its own chunk of n, and then all."""
    levels = group.size.bit_length() - 1
    for level in range(1, levels + 1):
        partner, mine, theirs = halves(group, value, level, levels)
        yield group.send(theirs, partner)
        yield from group.add(mine, partner)
    for level in range(levels, 0, -1):
        partner, mine, theirs = halves(group, value, level, levels)
        yield group.send(mine, partner)
        yield group.recv(theirs, partner)


def halves(group: Group, value: Value, level: int, levels: int) -> tuple[int, Value, Value]:
    """(partner, my half, its half) of what we shared one level before: chunks of 2 to the power of the level."""
    below = levels - level
    partner = group.at ^ (1 << below)
    return partner, Chunk(value, group.at >> below, 1 << level), Chunk(value, partner >> below, 1 << level)
