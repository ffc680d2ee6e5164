"""Blocks in buckets, and when a bucket's gradients are complete: what layers that combine gradients share."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from .. import checks
from ..rank import Rank
from ..values import Grads

Bucket = tuple[int, ...]
"""Blocks, in ascending order."""
BUCKET = 25 * 2**20
"""Bytes of gradients that are averaged together unless told otherwise, as in PyTorch's DistributedDataParallel."""


def check_bucket(limit: float) -> None:
    """Raise ValueError unless ``bucket_bytes`` are a number from 0, or infinite: then all blocks are in one bucket."""
    if limit != inf:
        checks.number("bucket_bytes", limit, least=0, of="0 is a bucket per block")


class Buckets:
    """The buckets of a rank, and how many backward passes each still waits for in this step."""

    def __init__(self, me: Rank, limit: float):
        self.all = buckets(me.blocks, lambda block: me.bytes(Grads(block)), limit)
        self.of = {block: bucket for bucket in self.all for block in bucket}
        self.passes = {bucket: len(bucket) * me.microbatches for bucket in self.all}
        self.missing = dict(self.passes)

    def complete(self, block: int) -> Bucket | None:
        """Count a backward pass of a block; its bucket, if that was the last one of the step."""
        bucket = self.of[block]
        self.missing[bucket] -= 1
        if self.missing[bucket]:
            return None
        self.missing[bucket] = self.passes[bucket]
        return bucket


def buckets(blocks: Bucket, size: Callable[[int], float], limit: float) -> tuple[Bucket, ...]:
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
