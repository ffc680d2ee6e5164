"""Attention over tokens that lie on several ranks, as a program: keys and values go round, queries stay."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from ..block import Part
from ..operations import MatMul, Operations
from ..passes import BackwardPart, ForwardPart, slope_of
from ..program import Compute, Recv, Send
from ..rank import Rank
from ..ring_maths import Attend, AttendBack, join, keys, nothing_found, nothing_lost, what_was_found
from ..stack import Program
from ..values import Named
from ..work import Scaled, Work


@dataclass(frozen=True)
class Ring:
    """The text of one attention on one rank. What enters are queries, keys and values of the rank's own tokens.

    After ``hop`` messages a rank has the keys of the rank ``hop`` places before it. Going forward, keys make n-1 hops;
    going back they do so again, and their gradients make n, back to where they belong.
    """

    me: Rank
    part: ForwardPart | BackwardPart

    def forward(self) -> Program:
        """What the queries find in the keys of all ranks."""
        entering, found, size = self.part.entering, self.named("found"), self.me.bytes(self.part.leaving)
        yield Compute(keys, (entering,), (self.keys,), sizes=(self.key_bytes,))
        yield Compute(nothing_found, (entering,), (found,), sizes=(size,))
        for hop in range(self.hops):
            if hop < self.hops - 1:
                yield Send(self.keys, to=self.next, over="context")
            if self.sees(hop):
                attend = Attend(hides=self.hides(hop))
                yield Compute(attend, (entering, self.keys, found), (found,), work=self.work(hop))
            if hop < self.hops - 1:
                yield Recv(self.keys, source=self.before, over="context")
        yield Compute(what_was_found, (found,), (self.part.leaving,))

    def backward(self) -> Program:
        """The gradients of queries, and those of keys and values, which travel with them."""
        entering, found, lost, slope = self.part.entering, self.named("found"), self.lost, slope_of(self.part.leaving)
        mine, size = self.named("query slope"), self.me.bytes(self.part.leaving)
        yield Compute(keys, (entering,), (self.keys,), sizes=(self.key_bytes,))
        yield Compute(nothing_lost, (entering,), (mine, lost), sizes=(size, self.key_bytes))
        for hop in range(self.hops):
            if hop < self.hops - 1:
                yield Send(self.keys, to=self.next, over="context")
            if self.sees(hop):
                back = AttendBack(hides=self.hides(hop))
                yield Compute(back, (entering, self.keys, found, slope, mine, lost), (mine, lost), work=self.work(hop))
            yield Send(lost, to=self.next, over="context")
            yield Recv(lost, source=self.before, over="context")
            if hop < self.hops - 1:
                yield Recv(self.keys, source=self.before, over="context")
        yield Compute(join, (mine, lost), (slope_of(entering),))

    # ------------------------------------------------------------ names

    @property
    def at(self) -> int:
        """My place in the ring."""
        return self.me.at("context")

    @property
    def hops(self) -> int:
        """How many ranks' keys pass by, my own among them."""
        return self.me.size("context")

    @property
    def next(self) -> int:
        """To whom keys go on."""
        return (self.at + 1) % self.hops

    @property
    def before(self) -> int:
        """From whom they come."""
        return (self.at - 1) % self.hops

    def sees(self, hop: int) -> bool:
        """Whether the keys that are here after so many hops are of tokens that mine may read."""
        return (self.at - hop) % self.hops <= self.at or not self._part.causal

    def hides(self, hop: int) -> bool:
        """Whether some of them come after some of mine: those that are my own."""
        return hop == 0 and self._part.causal

    @property
    def _part(self) -> Part:
        return self.me.model.blocks[self.part.block].parts[self.part.at]

    @property
    def keys(self) -> Named:
        """The keys and values that are here now."""
        return self.named("keys")

    @property
    def lost(self) -> Named:
        """The gradients of the keys and values that are here now."""
        return self.named("key slopes")

    @property
    def key_bytes(self) -> float:
        """The size of a rank's keys and values: what enters beside the queries, which are as large as what leaves.

        Where several heads share keys these are smaller. A model in plain parts does not say, and has as many of each.
        """
        entering, leaving = self.me.bytes(self.part.entering), self.me.bytes(self.part.leaving)
        return entering - leaving if entering > leaving else 2 * leaving

    def work(self, hop: int) -> Scaled:
        """What it costs to attend to the keys of one rank: a mask spares some of one's own, and none of others'."""
        part = self._part
        whole = part.forward if isinstance(self.part, ForwardPart) else part.backward
        return Scaled(whole if self.hides(hop) else unmasked(whole), 1 / self.hops)

    def named(self, what: str) -> Named:
        """A buffer of this block's attention and microbatch."""
        return Named(f"{what} of {self.part.block}.{self.part.at}", self.part.microbatch)


@lru_cache(maxsize=256)
def unmasked(work: Work) -> Work:
    """The same products with nothing skipped.

    >>> unmasked(Operations((MatMul(4, 4, 2, skipped=0.5),))).ops[0].skipped
    0.0
    """
    if not isinstance(work, Operations):
        return work
    return Operations(tuple(replace(op, skipped=0.0) if isinstance(op, MatMul) else op for op in work.ops), work.dtype)
