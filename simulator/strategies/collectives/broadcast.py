"""Broadcasts of large buffers: everybody helps to send it on. ``TreeAllReduce`` writes out that for small ones."""

from __future__ import annotations

from dataclasses import dataclass

from ... import checks
from ...program import Broadcast
from ...rank import Rank
from ...stack import Layer, Rules
from ...values import Chunk, Value
from .group import Group, Written, broadcast_by, in_place_of
from .ring import ring_all_gather


@dataclass(frozen=True)
class ScatterBroadcast(Layer):
    """Writes out Broadcast as a binomial scatter and a ring all-gather (van de Geijn; Thakur et al. 2005).

    ``over``: the axis whose collectives it writes out; None: all. ``theory.scatter_broadcast`` is its time
    where a rank sends one message after another; where they share its link, the scatter takes longer.

    >>> [str(chunk) for chunk in run_of_chunks(Grads(0), 2, 4, 8)]
    ['Grads(0)[1/4]']
    """

    over: str | None = None

    def rules(self, me: Rank) -> Rules:
        return in_place_of({Broadcast: broadcast_by(scatter_and_gather)}, me, self.over)


def scatter_and_gather(group: Group, value: Value) -> Written:
    """Each gets its own chunk, then all get all."""
    yield from scatter(group, value)
    yield from ring_all_gather(group, value)


def scatter(group: Group, value: Value) -> Written:
    """Whoever holds a run of chunks sends its upper half to the first whose they are, until everybody has one."""
    low, high = 0, group.size
    while high - low > 1:
        middle = (low + high + 1) // 2
        for chunk in run_of_chunks(value, middle, high, group.size):
            if group.at == low:
                yield group.send(chunk, middle)
            elif group.at == middle:
                yield group.recv(chunk, low)
        low, high = (low, middle) if group.at < middle else (middle, high)


def run_of_chunks(value: Value, start: int, end: int, of: int) -> tuple[Value, ...]:
    """Chunks ``start`` up to ``end`` of ``of``: as one larger chunk where there is such a one."""
    width = end - start
    if of % width == 0 and start % width == 0:
        return (Chunk(value, start // width, of // width),)
    return tuple(Chunk(value, index, of) for index in range(start, end))


@dataclass(frozen=True)
class ChainBroadcast(Layer):
    """Writes out Broadcast as chunks that follow each other from rank to rank.

    - ``chunks``: how many; ``theory.best_chunks`` says how many are best.
    - ``over``: the axis whose collectives it writes out; None: all.

    ``theory.pipelined`` with n - 1 hops is its time, where each message keeps its sender busy for its latency too.
    Raises ValueError for fewer than one chunk.

    >>> ChainBroadcast(chunks=4)
    ChainBroadcast(chunks=4)
    """

    chunks: int = 8
    over: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("chunks", self.chunks, least=1)

    def rules(self, me: Rank) -> Rules:
        def along_a_chain(group: Group, value: Value) -> Written:
            return chain(group, value, self.chunks)

        return in_place_of({Broadcast: broadcast_by(along_a_chain)}, me, self.over)


def chain(group: Group, value: Value, chunks: int) -> Written:
    """Take a chunk, pass it on, take the next."""
    for index in range(chunks):
        if group.at > 0:
            yield group.recv(Chunk(value, index, chunks), group.at - 1)
        if group.at < group.size - 1:
            yield group.send(Chunk(value, index, chunks), group.at + 1)
