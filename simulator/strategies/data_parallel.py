"""Synchronous data parallelism: every rank has the whole model and a slice of the batch; gradients are averaged.

Gradients are averaged in buckets while the backward pass goes on, as PyTorch's DistributedDataParallel does
(Li et al. 2020, arXiv:2006.15704). With a ring each rank sends 2(n-1)/n of the gradient's bytes per step
(Patarasuk and Yuan 2009).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from .. import checks
from ..compression import Compressor
from ..program import AllReduce, Backward, BackwardWeight, Start, Update, Wait
from ..rank import Rank
from ..rules.scaled import require_plain_loss
from ..stack import Layer, Program, Rules
from ..values import Grads, Params, Value
from .aggregation import Aggregation, ClippedMean, Mean, aggregation_of
from .alike import require_alike, require_whole
from .buckets import BUCKET, Bucket, Buckets, check_bucket
from .coding import require_one_scale
from .exchange import Exchange, clipped
from .starting import alike


@dataclass(frozen=True)
class DataParallel(Layer):
    """Average each bucket of gradients as soon as it is complete; wait for all of them before the update.

    - ``bucket_bytes``: blocks join a bucket until it holds this many bytes [default 25 MiB, as in PyTorch].
    - ``overlap``: start the all-reduce of a bucket during the backward pass; without it, all run after the pass.
    - ``replicas``: ranks along the axis "data"; None: as many as there are.
    - ``compression``: a compressor of ``simulator.compression``; see ``Compressed``, which does it for any strategy.
    - ``aggregate``: what the workers' gradients become: "mean", "weighted", "max", "clipped", "median" or "trimmed", or
      one of ``simulator.aggregation`` with its knobs. For "max", "median" and "trimmed" all gradients are gathered.
    - ``broadcast``: all begin with the parameters of the first, for models whose ranks draw different ones.

    >>> from simulator import aggregation, compression
    >>> DataParallel(compression=compression.FP16(), aggregate="mean")
    DataParallel(compression=FP16())
    """

    axis: ClassVar[str | None] = "data"
    sized: ClassVar[str | None] = "replicas"
    splits_batch: ClassVar[bool] = True
    looks_after: ClassVar[tuple[type[Value], ...]] = (Grads, Params)

    bucket_bytes: float = BUCKET
    overlap: bool = True
    replicas: int | None = None
    compression: Compressor | None = None
    aggregate: str | Aggregation = "mean"
    broadcast: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bucket(self.bucket_bytes)
        if self.compression is not None:
            checks.kind("compression", self.compression, Compressor, "one of simulator.compression, such as FP16()")
        aggregation_of(self.aggregate)

    def rules(self, me: Rank) -> Rules:
        buckets, aggregate = Buckets(me, self.bucket_bytes), aggregation_of(self.aggregate)
        require_alike(me, self.compression)
        require_one_scale(me, self.compression)
        if isinstance(aggregate, ClippedMean):
            require_whole(me, aggregate)
            require_plain_loss(me.rule, str(aggregate))
        exchange = Exchange("data", self.compression, aggregate)
        overlap = self.overlap and not isinstance(aggregate, ClippedMean)  # it needs the norm of all

        def reduce(backward: Backward | BackwardWeight) -> Program:
            yield backward
            bucket = buckets.complete(backward.block)
            if bucket is not None and overlap:
                yield from started(me, exchange, bucket)

        def finish(update: Update) -> Program:
            if isinstance(aggregate, ClippedMean):
                yield from clipped(me, Grads(me.blocks), aggregate)
            if not overlap:
                for bucket in buckets.all:
                    yield from exchange.average(me, Grads(bucket))
            yield Wait()
            yield update

        rules: Rules = {Backward: reduce, BackwardWeight: reduce, Update: finish}
        return alike(me, buckets.all, rules) if self.broadcast else rules


def started(me: Rank, exchange: Exchange, bucket: Bucket) -> Program:
    """Exchange a bucket beside the program."""
    if exchange.compressor is None and isinstance(exchange.aggregate, Mean):
        yield _average(bucket)
    elif what := tuple(exchange.average(me, Grads(bucket))):
        yield Start(what, on="data")


@lru_cache(maxsize=2**13)
def _average(bucket: Bucket) -> Start:
    """Made once for all ranks and steps: with many ranks, making it takes a tenth of the time."""
    return Start(AllReduce(Grads(bucket), over="data"), on="data")
