"""Horovod: data parallelism with a ring and tensor fusion (Sergeev and Del Balso 2018, arXiv:1802.05799).

Small gradients share one all-reduce: a ring of n ranks costs 2(n-1) latencies however small its buffer is.
"""

from __future__ import annotations

from ..rules import Rule
from ..stack import Stack, stack
from .collectives import RingAllReduce
from .data_parallel import DataParallel


def Horovod(
    fusion_bytes: float = 64 * 2**20, replicas: int | None = None, *, rule: Rule | None = None
) -> Stack:
    """``DataParallel`` with a ring that is written out: gradients are fused into buckets of ``fusion_bytes`` [B].

    Per bucket of S bytes ``theory.ring_all_reduce(n, S, …)``. 0 is one ring per block: no fusion. ``replicas`` and
    ``rule`` as in DataParallel, which raises ValueError for what is no size.

    >>> print(Horovod(fusion_bytes=1000))
    DataParallel(bucket_bytes=1000) + RingAllReduce(over='data')
    """
    return stack(DataParallel(bucket_bytes=fusion_bytes, replicas=replicas, rule=rule), RingAllReduce(over="data"))
