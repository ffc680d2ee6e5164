"""Closed forms of all-reduces on ranks with one full-duplex link each.

Besides the names of this package, ``reduction`` is the time to add one byte to another [s/B]. Forms with log2 n count
its rounds; they are exact where n is a power of two. Thakur, Rabenseifner and Gropp 2005 have most of them.
"""

from __future__ import annotations

from math import log2, sqrt

from ..collectives import doublings
from .broadcasts import tree_broadcast


def ring_all_reduce(n: int, size: float, bandwidth: float, latency: float = 0.0, reduction: float = 0.0) -> float:
    """2(n-1)·latency + 2(n-1)/n·size/bandwidth + (n-1)/n·size·reduction (Patarasuk and Yuan 2009).

    >>> ring_all_reduce(8, 100e6, 12.5e9, 10e-6)
    0.01414
    """
    return 2 * (n - 1) * latency + 2 * (n - 1) / n * size / bandwidth + (n - 1) / n * size * reduction


def ring_all_gather(n: int, size: float, bandwidth: float, latency: float = 0.0) -> float:
    """(n-1)·latency + (n-1)/n·size/bandwidth; a reduce-scatter takes the same (Thakur et al. 2005).

    >>> ring_all_gather(8, 100e6, 12.5e9, 10e-6)
    0.00707
    """
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
