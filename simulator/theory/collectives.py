"""Closed forms of collectives on ranks with one full-duplex link each.

Besides the names of this package, ``reduction`` is the time to add one byte to another [s/B], and ``chunks`` the number
of pieces that follow each other through a pipeline. Forms with log2 n count its rounds; they are exact where n is a
power of two. Thakur, Rabenseifner and Gropp 2005 have most of them.
"""

from __future__ import annotations

from math import ceil, log2, sqrt

from ..collectives import doublings

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
    """``bus_factor``·size/bandwidth: no algorithm is faster, unless the network itself adds."""
    return bus_factor(kind, n) * size / bandwidth


# ---------------------------------------------------------------- all-reduce


def ring_all_reduce(n: int, size: float, bandwidth: float, latency: float = 0.0, reduction: float = 0.0) -> float:
    """2(n-1)·latency + 2(n-1)/n·size/bandwidth + (n-1)/n·size·reduction (Patarasuk and Yuan 2009).

    >>> ring_all_reduce(8, 100e6, 12.5e9, 10e-6)
    0.01414
    """
    return 2 * (n - 1) * latency + 2 * (n - 1) / n * size / bandwidth + (n - 1) / n * size * reduction


def ring_all_gather(n: int, size: float, bandwidth: float, latency: float = 0.0) -> float:
    """(n-1)·latency + (n-1)/n·size/bandwidth; a reduce-scatter takes the same (Thakur et al. 2005)."""
    return ring_all_reduce(n, size, bandwidth, latency) / 2


def recursive_doubling(n: int, size: float, bandwidth: float, latency: float = 0.0, reduction: float = 0.0) -> float:
    """log2 n·(latency + size/bandwidth + size·reduction): everybody swaps everything with ever farther partners.

    >>> round(recursive_doubling(8, 100e6, 12.5e9, 10e-6), 6)
    0.02403
    """
    return log2(n) * (latency + size / bandwidth + size * reduction)


def halving_doubling(n: int, size: float, bandwidth: float, latency: float = 0.0, reduction: float = 0.0) -> float:
    """2·log2 n·latency + 2(n-1)/n·size/bandwidth + (n-1)/n·size·reduction (Rabenseifner 2004).

    >>> round(halving_doubling(8, 100e6, 12.5e9, 10e-6), 6)
    0.01406
    """
    return ring_all_reduce(n, size, bandwidth, 0.0, reduction) + 2 * log2(n) * latency


def ring_beats_doubling(n: int, bandwidth: float, latency: float) -> float:
    """The size [B] from which a ring is faster than recursive doubling, n ≥ 4.

    (2(n-1) - log2 n)·latency·bandwidth/(log2 n - 2(n-1)/n), where both closed forms are equal.

    >>> round(ring_beats_doubling(8, 12.5e9, 10e-6))
    1100000
    """
    return (2 * (n - 1) - log2(n)) * latency * bandwidth / (log2(n) - 2 * (n - 1) / n)


def halving_beats_doubling(n: int, bandwidth: float, latency: float) -> float:
    """The size [B] from which halving-doubling is faster than recursive doubling, n ≥ 4.

    log2 n·latency·bandwidth/(log2 n - 2(n-1)/n).

    >>> round(halving_beats_doubling(8, 12.5e9, 10e-6))
    300000
    """
    return log2(n) * latency * bandwidth / (log2(n) - 2 * (n - 1) / n)


def halving_saves(n: int, latency: float) -> float:
    """2·latency·(n - 1 - log2 n): how much sooner halving-doubling ends than a ring, where nothing contends.

    >>> round(halving_saves(8, 10e-6), 12)
    8e-05
    """
    return 2 * latency * (n - 1 - log2(n))


def tree_all_reduce(n: int, size: float, bandwidth: float, latency: float = 0.0, reduction: float = 0.0) -> float:
    """A reduction and a broadcast along a binomial tree: ceil(log2 n)·(2(latency + size/bandwidth) + size·reduction).

    >>> round(tree_all_reduce(8, 100e6, 12.5e9, 10e-6), 6)
    0.04806
    """
    return 2 * tree_broadcast(n, size, bandwidth, latency) + doublings(n) * size * reduction


def double_tree_all_reduce(n: int, size: float, bandwidth: float, latency: float = 0.0) -> float:
    """2(√((log2 n - 1)·latency) + √(size/bandwidth))²: two binary trees with half the buffer each, well pipelined.

    The shape, not a promise: each rank is a leaf of one tree (Sanders, Speck and Träff 2009; NCCL since 2.4).

    >>> round(double_tree_all_reduce(8, 100e6, 12.5e9, 10e-6), 5)
    0.01764
    """
    return 2 * (sqrt(max(0.0, log2(n) - 1) * latency) + sqrt(size / bandwidth)) ** 2 if n > 1 else 0.0


def hierarchical_all_reduce(nodes: int, group: int, size: float, inner: float, outer: float) -> float:
    """2(g-1)/g·size/inner + 2(m-1)/m·size/outer: reduce-scatter in a node, all-reduce between, all-gather in it.

    ``inner`` is the bandwidth of a rank in its node of g, ``outer`` that of all network cards of a node of the m.

    >>> round(hierarchical_all_reduce(4, 8, 1e9, 300e9, 12.5e9), 5)
    0.12583
    """
    return ring_all_reduce(group, size, inner) + ring_all_reduce(nodes, size, outer)


# ---------------------------------------------------------------- broadcast


def tree_broadcast(n: int, size: float, bandwidth: float, latency: float = 0.0) -> float:
    """ceil(log2 n)·(latency + size/bandwidth): a binomial tree (Thakur et al. 2005)."""
    return ceil(log2(n)) * (latency + size / bandwidth) if n > 1 else 0.0


def scatter_broadcast(n: int, size: float, bandwidth: float, latency: float = 0.0) -> float:
    """(log2 n + n - 1)·latency + 2(n-1)/n·size/bandwidth: a binomial scatter, a ring all-gather (van de Geijn).

    >>> round(scatter_broadcast(8, 100e6, 12.5e9, 10e-6), 6)
    0.0141
    """
    return (doublings(n) + n - 1) * latency + 2 * (n - 1) / n * size / bandwidth


def pipelined(hops: int, size: float, bandwidth: float, latency: float, chunks: int) -> float:
    """(L + k - 1)(latency + size/(k·bandwidth)): k chunks follow each other over L hops, a chain or a deep tree.

    >>> round(pipelined(7, 100e6, 12.5e9, 10e-6, 90), 6)
    0.009493
    """
    return (hops + chunks - 1) * (latency + size / (chunks * bandwidth))


def best_chunks(hops: int, size: float, bandwidth: float, latency: float) -> float:
    """√((L-1)·size/(latency·bandwidth)): the number of chunks for which ``pipelined`` is least.

    >>> round(best_chunks(7, 100e6, 12.5e9, 10e-6), 1)
    69.3
    """
    return sqrt((hops - 1) * size / (latency * bandwidth))


def best_pipelined(hops: int, size: float, bandwidth: float, latency: float) -> float:
    """(√((L-1)·latency) + √(size/bandwidth))²: ``pipelined`` with the best number of chunks.

    >>> round(best_pipelined(7, 100e6, 12.5e9, 10e-6), 6)
    0.009446
    """
    return (sqrt((hops - 1) * latency) + sqrt(size / bandwidth)) ** 2


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
    """2(n-1)/n·size: bytes that each rank sends in a ring all-reduce."""
    return 2 * (n - 1) / n * size


def data_parallel_bytes(ranks: int, parameter_bytes: float) -> list[float]:
    """Bytes that each rank sends per step: one all-reduce of all gradients, in however many buckets."""
    return [all_reduce_bytes(ranks, parameter_bytes)] * ranks
