"""Compressed gradients from rank to rank: workers encode, servers decode."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..compression import DGC
from ..program import Compute, Recv, Send
from ..rank import Rank
from ..stack import Program
from ..values import Grads, Nothing, Value, whole
from .coding import Coding
from .encoding import Decode, Room
from .exchange import first_time, payload_of

if TYPE_CHECKING:
    from .compressed import Compressed


class Mailed:
    """The rules of one rank. Whoever receives gradients does not send them on."""

    def __init__(self, layer: Compressed, me: Rank):
        self.layer, self.me = layer, me
        self.roles = set[str]()

    def send(self, send: Send) -> Program:
        """Encode, and send the payload; an empty message tells that none comes."""
        value = send.value
        if isinstance(value, Nothing) and value.instead is not None and isinstance(whole(value.instead), Grads):
            return (yield replace(send, value=Nothing(payload_of(value.instead))))
        if not isinstance(whole(value), Grads):
            return (yield send)
        coding = self._coding(value, "sends")
        yield from self.layer.exchange(send.over).encoded(self.me, coding, value)
        return (yield replace(send, value=payload_of(value)))

    def receive(self, recv: Recv) -> Program:
        """Take the payload, and decode it."""
        me, coding, payload = self.me, self._coding(recv.value, "receives"), payload_of(recv.value)
        if first_time(me, payload):
            size = float(coding.nbytes(me.width(recv.value)))
            yield Compute(Room(coding), (recv.value,), (payload,), sizes=(size,))
        message = yield replace(recv, value=payload, into=None)
        if message is None or not message.empty:
            seconds = self.layer.decode * me.elements(recv.value)
            sizes = (me.bytes(recv.value),)
            yield Compute(Decode(coding), (recv.value, payload), (recv.stored,), seconds=seconds, sizes=sizes)
        return message

    def _coding(self, value: Value, role: str) -> Coding:
        compressor = self.layer.compressor
        self.roles.add(role)
        if len(self.roles) > 1:
            raise ValueError(
                f"gradients are compressed on their way to who adds them up; rank {self.me.rank} receives and sends"
                f" {value}, as in a ring: put Compressed before what writes an all-reduce out as messages"
            )
        if compressor.varying or (isinstance(compressor, DGC) and compressor.warmup):
            raise ValueError(
                f"whoever receives {value} must know its size, and the payload of {compressor} varies: use TopK, or"
                " DataParallel, whose ranks tell each other"
            )
        return Coding.of(compressor, self.me, value, self.layer.seed, mailed=True)
