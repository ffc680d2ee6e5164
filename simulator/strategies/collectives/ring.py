"""A ring: everybody gives to the right what came from the left (Patarasuk and Yuan 2009).

Of n chunks each travels once around while it is added up, and once more while all get it. In n - 1 steps each, every
rank sends 1/n of the buffer: 2(n-1)·latency + 2(n-1)/n·size/bandwidth, the least that any algorithm can send.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...program import AllGather, AllReduce, Collective, ReduceScatter
from ...rank import Rank
from ...stack import Layer, Rules
from ...values import Value
from .group import Group, InPlace, Written, all_gather_by, all_reduce_by, in_place_of, reduce_scatter_by


@dataclass(frozen=True)
class RingAllReduce(Layer):
    """Writes out AllReduce, ReduceScatter and AllGather as messages around a ring (without ``into``: those stay).

    ``over``: the axis whose collectives it writes out; None: all. ``theory.ring_all_reduce`` is its time.

    >>> grid = listing(stack(DataParallel(overlap=False), RingAllReduce()), 2, Model.of_times(blocks=1, parameters=8))
    >>> grid.columns[0][4:8]
    ('Send Grads(0)[1/2] to data 1', 'Recv Grads(0)[0/2] from data 1', 'Reduce ...', 'Send Grads(0)[0/2] to data 1')
    """

    over: str | None = None

    def rules(self, me: Rank) -> Rules:
        written: dict[type[Collective], InPlace] = {
            AllReduce: all_reduce_by(ring),
            ReduceScatter: reduce_scatter_by(ring_reduce_scatter),
            AllGather: all_gather_by(ring_all_gather),
        }
        return in_place_of(written, me, self.over)


def ring(group: Group, value: Value) -> Written:
    """Both ways around."""
    yield from ring_reduce_scatter(group, value)
    yield from ring_all_gather(group, value)


def ring_reduce_scatter(group: Group, value: Value) -> Written:
    """I end with the sum of my own chunk: it has come all the way from my right neighbour."""
    for step in range(1, group.size):
        yield group.send(group.chunk(value, group.at - step), right(group))
        yield from group.add(group.chunk(value, group.at - step - 1), group.at - 1)


def ring_all_gather(group: Group, value: Value) -> Written:
    """I begin with my own chunk, and pass on what I get."""
    for step in range(group.size - 1):
        yield group.send(group.chunk(value, group.at - step), right(group))
        yield group.recv(group.chunk(value, group.at - step - 1), group.at - 1)


def right(group: Group) -> int:
    """My right neighbour."""
    return (group.at + 1) % group.size
