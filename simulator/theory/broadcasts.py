"""Closed forms of broadcasts on ranks with one full-duplex link each; ``chunks`` follow each other in a pipeline."""

from __future__ import annotations

from math import ceil, log2, sqrt

from ..collectives import doublings


def tree_broadcast(n: int, size: float, bandwidth: float, latency: float = 0.0) -> float:
    """ceil(log2 n)·(latency + size/bandwidth): a binomial tree (Thakur et al. 2005).

    >>> round(tree_broadcast(8, 100e6, 12.5e9, 10e-6), 6)
    0.02403
    """
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
