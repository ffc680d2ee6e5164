"""Gradients are made smaller before they travel, whatever the strategy that sends them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .. import checks
from ..compression import Compressor
from ..program import AllGather, AllReduce, Recv, ReduceScatter, Send
from ..rank import Rank
from ..stack import Layer, Program, Rules
from ..values import Grads, Value, whole
from .alike import require_alike
from .coding import require_one_scale
from .compressed_mail import Mailed
from .encoding import end_to_end
from .exchange import Exchange


@dataclass(frozen=True)
class Compressed(Layer):
    """Compress gradients that are averaged or gathered along an axis, or sent to a server.

    - ``compressor``: one of ``simulator.compression``. The payloads of linear ones are added by an all-reduce in their
      own type (FP16 adds halves); those of PowerSGD are two all-reduces; others are gathered and decoded by everybody.
    - ``seed``: what random compressors draw from.
    - ``encode``, ``decode``: seconds per number on the virtual clock; decoding what n ranks sent takes n times as long.

    It stands over what it compresses: ``stack(DataParallel(), Compressed(…))``. Sums of partial gradients, as tensor
    and context parallelism need them, stay exact, and so do parameters. Memories are kept by value: one for each
    bucket, or for each server's chunk. Raises ValueError where gradients are scattered, or passed on from rank to rank,
    for then ranks would round them differently.

    >>> from simulator import compression
    >>> small = Model.of_times(blocks=1, parameters=100)
    >>> listing(stack(DataParallel(overlap=False), Compressed(compression.Sign())), 2, small).columns[0][4:7]
    ('Compute encode Sign', 'AllGather payload of Grads(0)[0] over data', 'Compute decode Sign of 2')
    """

    named: ClassVar[tuple[str, ...]] = ("compressor",)

    compressor: Compressor
    seed: int = 0
    encode: float = 0.0
    decode: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.kind("compressor", self.compressor, Compressor, "one of simulator.compression, such as TopK(0.01)")
        checks.whole("seed", self.seed)
        checks.number("encode", self.encode, least=0, of="in seconds per number")
        checks.number("decode", self.decode, least=0, of="in seconds per number")

    def exchange(self, over: str) -> Exchange:
        """The exchange along an axis."""
        return Exchange(over, self.compressor, seed=self.seed, encode=self.encode, decode=self.decode)

    def rules(self, me: Rank) -> Rules:
        require_alike(me, self.compressor)
        require_one_scale(me, self.compressor)
        mailed = Mailed(self, me)

        def average(collective: AllReduce) -> Program:
            if not carries(collective.value) or collective.op != "mean":
                return (yield collective)
            yield from self.exchange(collective.over).average(me, collective.value)

        def gather(collective: AllGather) -> Program:
            value, into = collective.value, collective.into
            if not carries(value) or into is None:
                return (yield collective)
            yield from self.exchange(collective.over).gather(me, value, into, end_to_end)

        def send(send: Send) -> Program:
            return (yield from mailed.send(send))

        def receive(recv: Recv) -> Program:
            if not carries(recv.value):
                return (yield recv)
            return (yield from mailed.receive(recv))

        return {AllReduce: average, AllGather: gather, ReduceScatter: self.scatter, Send: send, Recv: receive}

    def scatter(self, collective: ReduceScatter) -> Program:
        """Refuse what has no usual way of being compressed."""
        if carries(collective.value):
            raise ValueError(
                f"{self} compresses gradients of which every rank gets the whole; after {collective} each has a part:"
                " use DataParallel, or Sharded without compression"
            )
        yield collective


def carries(value: Value | None) -> bool:
    """Whether a value is gradients, or a part of them."""
    return value is not None and isinstance(whole(value), Grads)
