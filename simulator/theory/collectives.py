"""What collectives have in common: which part of a buffer must pass a rank's link, and how many bytes ranks send.

All-to-alls too; see ``all_reduces`` and ``broadcasts`` for those. Forms with log2 n count its rounds; they are exact
where n is a power of two.
"""

from __future__ import annotations

from math import log2

from .all_reduces import ring_all_gather

SHARES = {
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_gather": lambda n: (n - 1) / n,
    "all_to_all": lambda n: (n - 1) / n,
    "broadcast": lambda n: 1.0 if n > 1 else 0.0,
    "reduce": lambda n: 1.0 if n > 1 else 0.0,
}


def bus_factor(kind: str, n: int) -> float:
    """Bus bandwidth over algorithm bandwidth: which part of the buffer must pass a rank's link.

    2(n-1)/n for "all_reduce", (n-1)/n for "reduce_scatter", "all_gather" and "all_to_all", 1 for "broadcast" and
    "reduce" (NVIDIA's nccl-tests, doc/PERFORMANCE.md). The buffer of a reduce-scatter and of an all-gather is the whole
    one. Raises ValueError for another kind.

    >>> bus_factor("all_reduce", 8)
    1.75
    """
    if kind not in SHARES:
        raise ValueError(f"a collective is one of {', '.join(map(repr, SHARES))}; got kind={kind!r}")
    return SHARES[kind](n)


def lower_bound(kind: str, n: int, size: float, bandwidth: float) -> float:
    """``bus_factor``·size/bandwidth [s]: no algorithm is faster, unless the network itself adds.

    Raises ValueError for a kind that ``bus_factor`` does not know.

    >>> lower_bound("all_reduce", 8, 100e6, 12.5e9)
    0.014
    """
    return bus_factor(kind, n) * size / bandwidth


# ---------------------------------------------------------------- all-to-all


def pairwise_all_to_all(n: int, size: float, bandwidth: float, latency: float = 0.0) -> float:
    """(n-1)·latency + (n-1)/n·size/bandwidth; ``size`` is what each rank has for all (Thakur et al. 2005).

    >>> round(pairwise_all_to_all(8, 100e6, 12.5e9, 10e-6), 6)
    0.00707
    """
    return ring_all_gather(n, size, bandwidth, latency)


def bruck_all_to_all(n: int, size: float, bandwidth: float, latency: float = 0.0) -> float:
    """log2 n·(latency + size/(2·bandwidth)): fewer messages, more bytes (Bruck et al. 1997).

    >>> round(bruck_all_to_all(8, 100e6, 12.5e9, 10e-6), 6)
    0.01203
    """
    return log2(n) * (latency + size / (2 * bandwidth))


# ---------------------------------------------------------------- bytes


def all_reduce_bytes(n: int, size: float) -> float:
    """2(n-1)/n·size: bytes that each rank sends in a ring all-reduce (Patarasuk and Yuan 2009).

    >>> all_reduce_bytes(8, 100e6)
    175000000.0
    """
    return 2 * (n - 1) / n * size


def data_parallel_bytes(ranks: int, parameter_bytes: float) -> list[float]:
    """Bytes that each rank sends per step: one all-reduce of all gradients, in however many buckets.

    >>> data_parallel_bytes(4, 100.0)
    [150.0, 150.0, 150.0, 150.0]
    """
    return [all_reduce_bytes(ranks, parameter_bytes)] * ranks
