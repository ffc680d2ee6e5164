"""The exchange of gradients: compressed or not, and what they become together. One text for all strategies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..compression import Compressor, PowerSGD
from ..program import AllGather, AllReduce, Compute
from ..rank import Rank
from ..rewriting import Program
from ..values import Named, Value
from .aggregation import Aggregation, ClippedMean, Mean, WeightedMean
from .coding import Coding, memories_of
from .encoding import Decode, DecodeAll, Encode, Zeros
from .low_rank import Factors, power_sgd_of

if TYPE_CHECKING:
    from torch import Tensor

MEAN = Mean()


@dataclass(frozen=True)
class Exchange:
    """How ranks along an axis exchange gradients.

    - ``compressor``: None sends numbers as they are. The sum of linear payloads is all-reduced, in their own type;
      others are gathered, and everybody decodes all.
    - ``aggregate``: what the workers' gradients become.
    - ``seed``: what compressors draw from, with the step, the value and, unless they share it, the rank.
    - ``encode``, ``decode`` [seconds per number]: what it costs on the virtual clock.
    """

    over: str
    compressor: Compressor | None = None
    aggregate: Aggregation = MEAN
    seed: int = 0
    encode: float = 0.0
    decode: float = 0.0

    def average(self, me: Rank, value: Value) -> Program:
        """After which ``value``, the gradients of every rank, is what they give together."""
        if not me.elements(value):
            return
        yield from self._prepared(me, value)
        if self.aggregate.gathers:
            yield from self.gather(me, value, value, self.aggregate)
        elif self.compressor is None:
            yield AllReduce(value, over=self.over)
        elif (power := power_sgd_of(self.compressor)) is not None:
            yield from self._factored(me, value, power)
        elif self.compressor.linear:
            yield from self._summed(me, value)
        else:
            yield from self.gather(me, value, value, MEAN)

    def gather(self, me: Rank, value: Value, into: Value, combine: Callable[[Tensor], Tensor]) -> Program:
        """After which every rank has, under ``into``, what everybody's ``value`` gives together."""
        n, every = me.size(self.over), Named(f"all {value}")
        if self.compressor is None:
            yield AllGather(value, over=self.over, into=every)
            yield Compute(Combine(combine, n), (every,), (into,))
            return
        coding, payload = Coding.of(self.compressor, me, value, self.seed), payload_of(value)
        yield from self.encoded(me, coding, value)
        yield AllGather(payload, over=self.over, into=every, ragged=self.compressor.varying)
        decode = DecodeAll(coding, me.group(self.over), combine)
        seconds = n * self.decode * me.elements(value)
        sizes = () if into == value else (n * me.bytes(value),)
        yield Compute(decode, (value, every), (into,), seconds=seconds, sizes=sizes)

    def encoded(self, me: Rank, coding: Coding, value: Value, parts: int | None = None) -> Program:
        """After which the payload of a value is there, and its memory is as it then must be."""
        yield from self.remembered(me, value)
        memory = memories_of(coding.compressor, value)
        sizes = (float(coding.nbytes(me.width(value))), *(me.bytes(value) for _ in memory))
        seconds = self.encode * me.elements(value)
        function = Encode(coding, me.rank, parts)
        yield Compute(function, (value, *memory), (payload_of(value), *memory), seconds=seconds, sizes=sizes)

    def remembered(self, me: Rank, value: Value) -> Program:
        """Before the first use of a memory it is filled with zeros."""
        assert self.compressor is not None
        memory = memories_of(self.compressor, value)
        if memory and first_time(me, memory[0]):
            sizes = tuple(me.bytes(value) for _ in memory)
            yield Compute(Zeros(len(memory)), (value,), memory, sizes=sizes)

    # ------------------------------------------------------------ ways

    def _prepared(self, me: Rank, value: Value) -> Program:
        """What a worker's own gradient is multiplied by before it travels."""
        factor = 1.0
        if self.aggregate.gathers:
            factor = 1 / own_weight(me)
        elif isinstance(self.aggregate, WeightedMean) and self.aggregate.weights is not None:
            factor = self.aggregate.share(me.at(self.over), me.size(self.over)) / own_weight(me)
        if factor != 1:
            yield Compute(Times(factor), (value,), (value,))

    def _summed(self, me: Rank, value: Value) -> Program:
        assert self.compressor is not None
        coding, payload = Coding.of(self.compressor, me, value, self.seed), payload_of(value)
        yield from self.encoded(me, coding, value, parts=me.size(self.over))
        yield AllReduce(payload, over=self.over, op="sum")
        seconds = self.decode * me.elements(value)
        yield Compute(Decode(coding), (value, payload), (value,), seconds=seconds)

    def _factored(self, me: Rank, value: Value, power: PowerSGD) -> Program:
        assert self.compressor is not None
        coding, count = Coding.of(self.compressor, me, value, self.seed), me.elements(value)
        memory, width = memories_of(self.compressor, value), me.width(value)
        costs = self.encode * count, self.decode * count
        factors = Factors(power, coding.shapes, value, memory, self.over, width, *costs)
        yield from self.remembered(me, value)
        if first_time(me, factors.q):
            yield from factors.begin(coding.lot)
        yield from factors.exchange()


def own_weight(me: Rank) -> float:
    """What a worker's gradient counts in the mean, so that it is over all samples: 1 where slices are even.

    A worker's own gradient is what it holds, divided by this.
    """
    if me.local or me.share is None or not me.taken:
        return 1.0
    return me.taken * me.share[1] / me.model.batch


def clipped(me: Rank, value: Value, aggregate: ClippedMean) -> Program:
    """A worker's own gradient, of at most a length."""
    yield Compute(Clip(aggregate, own_weight(me)), (value,), (value,))


def payload_of(value: Value) -> Named:
    """What travels in the place of a value."""
    return Named(f"payload of {value}")


def first_time(me: Rank, value: Value) -> bool:
    """Whether a rank asks this of a buffer for the first time."""
    known: set[Value] = me.memory.setdefault("buffers of exchanges", set())
    if value in known:
        return False
    known.add(value)
    return True


@dataclass(frozen=True)
class Combine:
    """From the gradients of n workers, one after another, to one."""

    function: Callable[[Tensor], Tensor]
    n: int

    @property
    def __name__(self) -> str:
        return f"{type(self.function).__name__} of {self.n}"

    def __call__(self, every: Tensor) -> Tensor:
        """Of ``[n · numbers]`` the ``[numbers]``."""
        return self.function(every.view(self.n, -1))


@dataclass(frozen=True)
class Times:
    """A gradient times a number."""

    factor: float
    __name__: ClassVar[str] = "scale"

    def __call__(self, gradient: Tensor) -> Tensor:
        """Of the same shape."""
        return gradient * self.factor


@dataclass(frozen=True)
class Clip:
    """A gradient that counts ``weight``, clipped as if it counted 1."""

    aggregate: ClippedMean
    weight: float
    __name__: ClassVar[str] = "clip"

    def __call__(self, gradient: Tensor) -> Tensor:
        """Of the same shape."""
        return self.aggregate.clipped(gradient, self.weight)
