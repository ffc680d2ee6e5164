"""Closed forms of parameter servers, with and without helpers (Jiang et al. 2020, BytePS, OSDI)."""

from __future__ import annotations

from .collectives import all_reduce_bytes


def parameter_server(workers: int, servers: int, size: float, bandwidth: float) -> float:
    """max(size, workers·size/servers)/bandwidth: one way (push or pull), with servers on ranks of their own.

    Over links that carry both directions at once, and in many small pieces, it is the time of both ways together.

    >>> parameter_server(8, 4, 100e6, 12.5e9)
    0.016
    """
    return max(size, workers * size / servers) / bandwidth


def colocated_servers(n: int, size: float, bandwidth: float) -> float:
    """2(n-1)/n·size/bandwidth, push and pull: every worker serves 1/n of the parameters.

    >>> colocated_servers(8, 100e6, 12.5e9)
    0.014
    """
    return all_reduce_bytes(n, size) / bandwidth


def helped_all_reduce(n: int, helpers: int, size: float, bandwidth: float) -> float:
    """2n(n-1)/(n² + kn - 2k)·size/bandwidth: the least time of n workers that share the sums with k ≤ n helpers.

    Push and pull overlap, in many small pieces. More helpers than workers are of no more use than n. Theorem 1 of the
    paper.

    >>> [round(helped_all_reduce(8, k, 1.0, 1.0), 3) for k in (0, 1, 2, 4, 8)]
    [1.75, 1.6, 1.474, 1.273, 1.0]
    """
    if n == 1:
        return 0.0
    helpers = min(helpers, n)
    return 2 * n * (n - 1) / (n * n + helpers * n - 2 * helpers) * size / bandwidth


def helped_shares(n: int, helpers: int) -> tuple[float, float]:
    """(of a worker, of a helper): the parts of the buffer that each sums, so that all links are equally busy.

    (n - k)/(n² + kn - 2k) and 2(n - 1)/(n² + kn - 2k) for k ≤ n helpers; beyond, helpers alone share it.

    >>> helped_shares(8, 0), helped_shares(8, 8)
    ((0.125, 0.0), (0.0, 0.125))
    """
    if n == 1 or helpers == 0:
        return 1 / n, 0.0
    if helpers >= n:
        return 0.0, 1 / helpers
    whole = n * n + helpers * n - 2 * helpers
    return (n - helpers) / whole, 2 * (n - 1) / whole


def servers_beat_ring(n: int) -> int:
    """The fewest servers on ranks of their own that are faster than a ring of n ≥ 2: more than n²/(2(n-1)).

    >>> servers_beat_ring(8)
    5
    """
    return n * n // (2 * (n - 1)) + 1


def parameter_server_bytes(ranks: int, servers: int, parameters: int, width: int) -> list[float]:
    """Bytes that each rank sends per step: a server its chunk to every worker, a worker all its gradients.

    The first ranks are the ``servers``; ``parameters`` are counted, ``width`` is the bytes of each (Li et al. 2014).

    >>> parameter_server_bytes(3, servers=1, parameters=100, width=4)
    [800.0, 400.0, 400.0]
    """
    workers = ranks - servers
    chunks = [((s + 1) * parameters // servers - s * parameters // servers) * width for s in range(servers)]
    return [*(float(workers * chunk) for chunk in chunks), *([float(parameters * width)] * workers)]
