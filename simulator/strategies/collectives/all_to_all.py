"""All-to-all: every rank has something for every other. Programs to be used inside an order or a layer.

``outgoing[j]`` is what I have for rank j of the group, ``incoming[j]`` is where what comes from j is stored. All values
are of one size, and every rank calls them the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...program import Copy
from ...values import Named, Value
from .group import Group, Written


def pairwise(group: Group, outgoing: Sequence[Value], incoming: Sequence[Value]) -> Written:
    """In round i, send to who is i places on and receive from who is i places back (Thakur et al. 2005).

    (n-1)·latency + (n-1)/n·size/bandwidth, ``theory.pairwise_all_to_all``: no byte travels twice.

    >>> group = Group("world", (0, 1), at=0)
    >>> for instruction in pairwise(group, [Named("out", 0), Named("out", 1)], [Named("in", 0), Named("in", 1)]):
    ...     print(instruction)
    Copy out[0] to in[0]
    Send out[1] to world 1
    Recv out[0] from world 1
    """
    _one_each(group, outgoing, incoming)
    yield Copy(outgoing[group.at], incoming[group.at])
    for step in range(1, group.size):
        to, source = (group.at + step) % group.size, (group.at - step) % group.size
        yield group.send(outgoing[to], to)
        yield group.recv(outgoing[group.at], source, into=incoming[source])


def bruck(group: Group, outgoing: Sequence[Value], incoming: Sequence[Value]) -> Written:
    """What has to go d places on goes by the powers of two of which d is the sum (Bruck et al. 1997).

    log2 n·(latency + size/(2·bandwidth)), ``theory.bruck_all_to_all``: fewer rounds, but bytes travel several times.
    """
    _one_each(group, outgoing, incoming)
    n = group.size
    slots = [Named(f"on its way for {outgoing[0]}", places) for places in range(n)]
    for places, slot in enumerate(slots):
        yield Copy(outgoing[(group.at + places) % n], slot)
    distance = 1
    while distance < n:
        moving = [slot for places, slot in enumerate(slots) if places & distance]
        for slot in moving:
            yield group.send(slot, (group.at + distance) % n)
        for slot in moving:
            yield group.recv(slot, (group.at - distance) % n)
        distance *= 2
    for places, slot in enumerate(slots):
        yield Copy(slot, incoming[(group.at - places) % n])


def _one_each(group: Group, outgoing: Sequence[Value], incoming: Sequence[Value]) -> None:
    if not len(outgoing) == len(incoming) == group.size:
        raise ValueError(
            f"an all-to-all has one value for each rank and from each; got {len(outgoing)} outgoing and"
            f" {len(incoming)} incoming for {group.size} ranks"
        )
