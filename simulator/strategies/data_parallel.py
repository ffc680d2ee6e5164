"""Synchronous data parallelism: every rank has the whole model and a slice of the batch; gradients are averaged.

Gradients are averaged in buckets while the backward pass goes on, as PyTorch's DistributedDataParallel does
(Li et al. 2020, arXiv:2006.15704). With a ring each rank sends 2(n-1)/n of the gradient's bytes per step
(Patarasuk and Yuan 2009).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import inf
from typing import ClassVar

from .. import checks
from ..program import AllReduce, Backward, BackwardWeight, Start, Update, Wait
from ..rank import Rank
from ..stack import Layer, Program, Rules
from ..values import Grads, Params, Value


@dataclass(frozen=True)
class DataParallel(Layer):
    """Average each bucket of gradients as soon as it is complete; wait for all of them before the update.

    - ``bucket_bytes``: blocks join a bucket until it holds this many bytes [default 25 MiB, as in PyTorch].
    - ``overlap``: start the all-reduce of a bucket during the backward pass; without it, all run after the pass.
    - ``replicas``: ranks along the axis "data"; None: as many as there are.
    """

    axis: ClassVar[str | None] = "data"
    looks_after: ClassVar[tuple[type[Value], ...]] = (Grads, Params)

    bucket_bytes: float = 25 * 2**20
    overlap: bool = True
    replicas: int | None = None

    def __post_init__(self) -> None:
        if self.bucket_bytes != inf:
            checks.number("bucket_bytes", self.bucket_bytes, least=0, of="0 is a bucket per block")
        if self.replicas is not None:
            checks.whole("replicas", self.replicas, least=1)

    @property
    def extent(self) -> int | None:
        return self.replicas

    def share(self, me: Rank, share: tuple[int, int] | None) -> tuple[int, int] | None:
        if share is None:
            return None
        index, count = share
        return index * me.size("data") + me.at("data"), count * me.size("data")

    def rules(self, me: Rank) -> Rules:
        full = buckets(me.blocks, lambda block: me.bytes(Grads(block)), self.bucket_bytes)
        bucket_of = {block: bucket for bucket in full for block in bucket}
        missing = {bucket: len(bucket) * me.microbatches for bucket in full}

        def reduce(backward: Backward | BackwardWeight) -> Program:
            yield backward
            bucket = bucket_of[backward.block]
            missing[bucket] -= 1
            if not missing[bucket]:
                missing[bucket] = len(bucket) * me.microbatches
                if self.overlap:
                    yield _average(bucket)

        def finish(update: Update) -> Program:
            if not self.overlap:
                for bucket in full:
                    yield AllReduce(Grads(bucket), over="data")
            yield Wait()
            yield update

        return {Backward: reduce, BackwardWeight: reduce, Update: finish}


@cache
def _average(bucket: tuple[int, ...]) -> Start:
    """Made once for all ranks and steps: with many ranks, making it takes a tenth of the time."""
    return Start(AllReduce(Grads(bucket), over="data"), on="data")


def buckets(
    blocks: tuple[int, ...], size: Callable[[int], float], limit: float
) -> tuple[tuple[int, ...], ...]:
    """Blocks from last to first in groups of at least ``limit`` bytes; each group in ascending order.

    >>> buckets((0, 1, 2, 3), lambda block: 10, 20)
    ((2, 3), (0, 1))
    """
    groups: list[list[int]] = []
    room = 0.0
    for block in reversed(blocks):
        if room <= 0:
            groups.append([])
            room = limit
        groups[-1].insert(0, block)
        room -= size(block)
    if len(groups) > 1 and not sum(map(size, groups[-1])):
        groups[-2:] = [groups[-1] + groups[-2]]
    return tuple(map(tuple, groups))
