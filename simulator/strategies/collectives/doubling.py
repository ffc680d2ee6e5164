"""Recursive doubling: swap everything with a partner, then with one twice as far, and so on.

log2 n·(latency + size/bandwidth): few messages, many bytes; the best for small buffers (Thakur et al. 2005).
"""

from __future__ import annotations

from dataclasses import dataclass

from ...program import AllReduce
from ...rank import Rank
from ...stack import Layer, Rules
from ...values import Value
from .group import Group, Text, Written, all_reduce_by, in_place_of


@dataclass(frozen=True)
class RecursiveDoubling(Layer):
    """Writes out AllReduce as swaps with partners 1, 2, 4, … ranks away.

    ``over``: the axis whose collectives it writes out; None: all. ``theory.recursive_doubling`` is its time. Where the
    number of ranks is no power of two, two messages more: see ``folded``.

    >>> grid = listing(stack(DataParallel(overlap=False), RecursiveDoubling()), 2, Model.of_times(1, parameters=8))
    >>> grid.columns[0][4:7]
    ('Send Grads(0) to data 1', 'Recv Grads(0) from data 1', 'Reduce Grads(0) += 1 arrived Grads(0)[0]')
    """

    over: str | None = None

    def rules(self, me: Rank) -> Rules:
        return in_place_of({AllReduce: all_reduce_by(doubling)}, me, self.over)


def doubling(group: Group, value: Value) -> Written:
    """After the swap over distance d, groups of 2d neighbours have the same sum."""
    return folded(swaps, group, value)


def swaps(group: Group, value: Value) -> Written:
    """The swaps, for a power of two ranks."""
    distance = 1
    while distance < group.size:
        yield group.send(value, group.at ^ distance)
        yield from group.add(value, group.at ^ distance)
        distance *= 2


def folded(text: Text, group: Group, value: Value) -> Written:
    """A program for powers of two on any number of ranks, as MPI libraries do it (Thakur et al. 2005).

    Those too many, each with a neighbour, are the first pairs: one of a pair hands its value to the other before, and
    gets the result after.
    """
    extra = group.size - (1 << (group.size.bit_length() - 1))
    paired = group.at < 2 * extra
    if paired and group.at % 2 == 0:
        yield group.send(value, group.at + 1)
        yield group.recv(value, group.at + 1)
        return
    if paired:
        yield from group.add(value, group.at - 1)
    yield from text(group.of([*range(1, 2 * extra, 2), *range(2 * extra, group.size)]), value)
    if paired:
        yield group.send(value, group.at - 1)
