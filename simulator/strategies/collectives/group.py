"""What all written-out collectives share: who takes part, and how a layer puts a program in a collective's place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...program import (
    AllGather,
    AllReduce,
    Collective,
    Compute,
    Recv,
    Reduce,
    ReduceScatter,
    Send,
)
from ...rank import Rank
from ...rewriting import Rewrite
from ...stack import Program, Rules
from ...values import Chunk, Named, Value

Written = Program
"""A collective written out: instructions of one rank, which use no results."""


@dataclass(frozen=True)
class Group:
    """The ranks that take part, as positions along an axis; ``at`` is my place among them.

    A written-out collective counts from 0 to ``size - 1`` and leaves positions to its group.

    >>> print(Group("data", (2, 3, 5), at=1).send(Grads(0), 2))
    Send Grads(0) to data 5
    """

    over: str
    members: tuple[int, ...]
    at: int

    @classmethod
    def along(cls, me: Rank, over: str) -> Group:
        """All ranks along an axis of the rank grid that differ from me in nothing else."""
        return cls(over, tuple(range(me.size(over))), me.at(over))

    @property
    def size(self) -> int:
        """How many we are."""
        return len(self.members)

    def of(self, some: Sequence[int]) -> Group:
        """Some of us, in this order; I am one of them."""
        return Group(self.over, tuple(self.members[index] for index in some), list(some).index(self.at))

    def turned(self, first: int) -> Group:
        """All of us, counted from ``first`` on."""
        return self.of([(first + index) % self.size for index in range(self.size)])

    def chunk(self, value: Value, index: int) -> Chunk:
        """The part of a value that belongs to one of us; places are counted round and round."""
        return Chunk(value, index % self.size, self.size)

    def send(self, value: Value, to: int) -> Send:
        """Send a value to one of us."""
        return Send(value, to=self.members[to], over=self.over)

    def recv(self, value: Value, source: int, into: Value | None = None) -> Recv:
        """Receive a value from one of us."""
        return Recv(value, source=self.members[source], over=self.over, into=into)

    def add(self, value: Value, source: int) -> Written:
        """Receive a value from one of us and add it to mine. It lands in a buffer that no other value uses."""
        arrived = Named(f"arrived {value}")
        yield self.recv(value, source, into=arrived)
        yield Reduce(value, arrived)


@dataclass(frozen=True)
class Divide:
    """Makes a sum of ``by`` values their mean: the function of a Compute."""

    by: int

    @property
    def __name__(self) -> str:
        return f"the mean of {self.by}"

    def __call__(self, total: Any) -> Any:
        return total / self.by


def mean(value: Value, n: int, op: str) -> Written:
    """Divide a sum over n ranks by n, where the mean is asked for."""
    if op == "mean" and n > 1:
        yield Compute(Divide(n), (value,), (value,))


# ---------------------------------------------------------------- what a layer puts in the place of a collective

Text = Callable[[Group, Value], Written]
"""A written-out collective, which adds where there is something to add."""
InPlace = Callable[[Group, Any], Written]
"""What takes the place of a Collective."""


def all_reduce_by(text: Text) -> InPlace:
    """In the place of an AllReduce: the program of a sum, and a division where the mean is asked for."""

    def written(group: Group, collective: AllReduce) -> Written:
        yield from text(group, collective.value)
        yield from mean(collective.value, group.size, collective.op)

    return written


def reduce_scatter_by(text: Text) -> InPlace:
    """In the place of a ReduceScatter."""

    def written(group: Group, collective: ReduceScatter) -> Written:
        yield from text(group, collective.value)
        yield from mean(group.chunk(collective.value, group.at), group.size, collective.op)

    return written


def all_gather_by(text: Text) -> InPlace:
    """In the place of an AllGather."""
    return lambda group, collective: text(group, collective.value)


def broadcast_by(text: Text) -> InPlace:
    """In the place of a Broadcast: a program that spreads the value of the first, counted from the root on."""
    return lambda group, collective: text(group.turned(collective.root), collective.value)


def in_place_of(written: Mapping[type[Collective], InPlace], me: Rank, over: str | None) -> Rules:
    """The rules of a layer that writes collectives out along ``over``, or along all axes.

    Those of a lone rank stay as they are, and so do those whose result has another size than what goes in.
    """
    if over is not None:
        me.size(over)  # refuses what is no axis: nothing would be written out, and nobody would know

    def rule_for(text: InPlace) -> Rewrite:
        def rule(collective: Collective) -> Program:
            if over not in (None, collective.over) or me.size(collective.over) == 1 or resized(collective):
                return (yield collective)
            for instruction in text(Group.along(me, collective.over), collective):  # noqa: UP028 - Recvs give results
                yield instruction

        return rule

    return {kind: rule_for(text) for kind, text in written.items()}


def resized(collective: Collective) -> bool:
    """Whether a collective stores something of another size under another name, which chunks of one value cannot do."""
    return isinstance(collective, (ReduceScatter, AllGather)) and collective.into is not None
