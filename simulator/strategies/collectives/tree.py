"""Binomial trees: a sum runs down to the first rank in ceil(log2 n) rounds, and a value runs up from it in as many.

Each round moves the whole buffer: ceil(log2 n)·(latency + size/bandwidth) for one way (Thakur et al. 2005). That holds
where a rank sends one message after another. On links that are shared fairly, what a rank sends to several at once ends
for all of them late, and a broadcast takes longer: of n = 2^L ranks L·latency + L(L+1)/2·size/bandwidth.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...collectives import doublings
from ...program import AllReduce, Broadcast, Collective
from ...rank import Rank
from ...stack import Layer, Rules
from ...values import Value
from .group import Group, InPlace, Written, all_reduce_by, broadcast_by, in_place_of


@dataclass(frozen=True)
class TreeAllReduce(Layer):
    """Writes out AllReduce as a reduction and a broadcast along a binomial tree, and Broadcast as its second half.

    ``over``: the axis whose collectives it writes out; None: all. ``theory.tree_all_reduce`` is its time
    where a rank sends one message after another; where its messages share a link, 2^L ranks take
    2L·latency + L(L+3)/2·size/bandwidth.

    >>> grid = listing(stack(DataParallel(overlap=False), TreeAllReduce()), 2, Model.of_times(blocks=1, parameters=8))
    >>> grid.columns[1][4:6]
    ('Send Grads(0) to data 0', 'Recv Grads(0) from data 0')
    """

    over: str | None = None

    def rules(self, me: Rank) -> Rules:
        written: dict[type[Collective], InPlace] = {
            AllReduce: all_reduce_by(tree),
            Broadcast: broadcast_by(tree_broadcast),
        }
        return in_place_of(written, me, self.over)


def tree(group: Group, value: Value) -> Written:
    """Down to the first, up to all."""
    yield from tree_reduce(group, value)
    yield from tree_broadcast(group, value)


def tree_reduce(group: Group, value: Value) -> Written:
    """In every round the upper half of those who still have a sum give it to the lower half, down to the first."""
    for distance in reversed(distances(group)):
        if group.at < distance and group.at + distance < group.size:
            yield from group.add(value, group.at + distance)
        elif distance <= group.at < 2 * distance:
            yield group.send(value, group.at - distance)


def tree_broadcast(group: Group, value: Value) -> Written:
    """In every round all who have the value of the first send it on, to as many others."""
    for distance in distances(group):
        if group.at < distance and group.at + distance < group.size:
            yield group.send(value, group.at + distance)
        elif distance <= group.at < 2 * distance:
            yield group.recv(value, group.at - distance)


def distances(group: Group) -> list[int]:
    """1, 2, 4, … as long as somebody is so far away."""
    return [1 << round for round in range(doublings(group.size))]
