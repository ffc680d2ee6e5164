"""An all-reduce of which both legs are compressed, each with a memory of what it left out.

Every rank is a server of one chunk: workers send each server its chunk, encoded; servers average what they decode,
encode it again and all gather it. So n ranks send 2(n-1)/n of the encoded vector, as a ring does of the vector itself,
where gathering everybody's payload would take n - 1 of it (Tang et al. 2021, arXiv:2102.02888, section 6).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..compression import ErrorFeedback
from ..program import AllGather, Compute, Instruction, Recv, Send
from ..rank import Rank
from ..values import Named, Params, bounds
from .encoding import Zeros
from .exchange import first_time

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TwoWay:
    """The program that averages a named vector of ``elements`` numbers along an axis."""

    value: Named
    elements: int
    over: str
    compressor: ErrorFeedback

    def program(self, me: Rank) -> Iterator[Instruction]:
        """After which the vector is the compressed mean, the same on all ranks."""
        n, at, width = me.size(self.over), me.at(self.over), float(me.width(Params(me.blocks)))
        sizes = tuple(end - start for start, end in (bounds(self.elements, part, n) for part in range(n)))
        sent = [self.compressor.nbytes(size, int(width)) for size in sizes]
        worker, server, served = (self._named(name) for name in ("worker's error", "server's error", "mean"))
        parts, others = [self._named("part", j) for j in range(n)], [j for j in range(n) if j != at]
        if first_time(me, worker):
            yield Compute(Zeros(1), (self.value,), (worker,), sizes=(width * self.elements,))
            yield Compute(ZerosOf(sizes[at]), (self.value,), (server,), sizes=(width * sizes[at],))
        encode = EncodeParts(self.compressor, sizes)
        yield Compute(encode, (self.value, worker), (*parts, worker), sizes=tuple(map(float, sent)))
        for j in others:
            yield Send(parts[j], to=j, over=self.over)
        arrived = [self._named("arrived", j) for j in others]
        for j, into in zip(others, arrived):
            yield Recv(parts[at], source=j, over=self.over, into=into)
        serve = Serve(self.compressor, sizes[at])
        yield Compute(serve, (server, parts[at], *arrived), (served, server), sizes=(float(sent[at]),))
        every = self._named("means")
        yield AllGather(served, over=self.over, into=every, ragged=len(set(sent)) > 1)
        yield Compute(DecodeParts(self.compressor, sizes), (self.value, every), (self.value,))

    def _named(self, name: str, key: int = 0) -> Named:
        return Named(f"{name} of {self.value}", key)


@dataclass(frozen=True)
class ZerosOf:
    """The memory of a server before the first step."""

    size: int
    __name__: ClassVar[str] = "empty memory"

    def __call__(self, like: Tensor) -> Tensor:
        """Of the type of ``like``."""
        return like.new_zeros(self.size)


@dataclass(frozen=True)
class EncodeParts:
    """A worker's leg: each part of the vector is encoded by itself."""

    compressor: ErrorFeedback
    sizes: tuple[int, ...]

    @property
    def __name__(self) -> str:
        return f"encode {len(self.sizes)} parts"

    def __call__(self, vector: Tensor, memory: Tensor) -> tuple[Tensor, ...]:
        """A payload for each part, and the new memory."""
        import torch

        pairs = zip(vector.split(self.sizes), memory.split(self.sizes))
        found = [self.compressor.feedback(part, left) for part, left in pairs]
        return *(data for data, _ in found), torch.cat([left for _, left in found])


@dataclass(frozen=True)
class Serve:
    """A server's leg: the mean of what workers sent, encoded."""

    compressor: ErrorFeedback
    size: int
    __name__: ClassVar[str] = "encode the mean"

    def __call__(self, memory: Tensor, *payloads: Tensor) -> tuple[Tensor, Tensor]:
        """The payload, and the new memory."""
        import torch

        rows = torch.stack([self.compressor.decode(data, self.size, memory.dtype) for data in payloads])
        return self.compressor.feedback(rows.mean(0), memory)


@dataclass(frozen=True)
class DecodeParts:
    """The vector, from the payloads of all servers."""

    compressor: ErrorFeedback
    sizes: tuple[int, ...]

    @property
    def __name__(self) -> str:
        return f"decode {len(self.sizes)} parts"

    def __call__(self, like: Tensor, every: Tensor) -> Tensor:
        """``like`` says of which type the numbers are."""
        import torch

        parts = every.split([self.compressor.nbytes(size, like.itemsize) for size in self.sizes])
        return torch.cat([self.compressor.decode(data, n, like.dtype) for data, n in zip(parts, self.sizes)])
