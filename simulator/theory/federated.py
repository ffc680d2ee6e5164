"""Closed forms of local and federated methods. Times in seconds, sizes in bytes, staleness in updates.

Client k has the loss ``a_k/2 (x − x_k)²`` and 1/n of the data; ``lr`` is the learning rate of its ``local_steps``
steps of plain gradient descent.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, fsum, sqrt

from .asynchrony import async_staleness
from .collectives import all_reduce_bytes


def fedavg_limit(curvatures: Sequence[float], minima: Sequence[float], lr: float, local_steps: int) -> float:
    """Σ c_k x_k / Σ c_k, c_k = 1 - (1 - lr·a_k)^local_steps: where FedAvg ends. One local step finds the optimum.

    A round takes client k from x to ``x_k + (1 − lr a_k)^H (x − x_k)``; the mean of that is x at the limit only.

    >>> [round(fedavg_limit((1, 10), (0, 1), 0.05, steps), 5) for steps in (1, 5, 20, 200)]
    [0.90909, 0.81069, 0.60919, 0.50001]
    """
    return _centre([1 - (1 - lr * a) ** local_steps for a in curvatures], minima)


def fedprox_limit(curvatures: Sequence[float], minima: Sequence[float], mu: float) -> float:
    """Σ c_k x_k / Σ c_k, c_k = a_k / (a_k + mu): where FedProx ends, if clients solve their problems exactly.

    >>> round(fedprox_limit((1, 10), (0, 1), 5.0), 12)
    0.8
    """
    return _centre([a / (a + mu) for a in curvatures], minima)


def optimum(curvatures: Sequence[float], minima: Sequence[float]) -> float:
    """Σ a_k x_k / Σ a_k: the minimum of the mean loss, where SCAFFOLD ends.

    >>> round(optimum((1, 10), (0, 1)), 5)
    0.90909
    """
    return _centre(curvatures, minima)


def fedasync_staleness(clients: int) -> float:
    """``async_staleness`` of N clients that are always busy, N - 1: their server applies every report by itself.

    >>> fedasync_staleness(10)
    9.0
    """
    return float(async_staleness(clients))


def fedbuff_staleness(clients: int, buffer: int) -> float:
    """(C - 1)/K: mean staleness of C clients that are always busy, when the server moves once per K reports.

    Between two reports of a client come C - 1 others, each of which is 1/K of a move.

    >>> fedbuff_staleness(100, 10)
    9.9
    """
    return (clients - 1) / buffer


def fedavg_bytes(size: float, clients: int) -> float:
    """2·size·clients: what a round moves in all, the model down and the change up (McMahan 2017, arXiv:1602.05629).

    >>> fedavg_bytes(25e6, 100)
    5000000000.0
    """
    return 2 * size * clients


def rounds(steps: int, period: int) -> int:
    """ceil(steps/period): how often local methods communicate; the last round may be shorter.

    >>> rounds(10, 4)
    3
    """
    return ceil(steps / period)


def local_sgd_bytes(ranks: int, size: float, steps: int, period: int) -> float:
    """rounds·2(n-1)/n·size: bytes that each rank sends in so many steps (Stich 2019, arXiv:1805.09767).

    >>> local_sgd_bytes(2, 400.0, steps=8, period=4)
    800.0
    """
    return rounds(steps, period) * all_reduce_bytes(ranks, size)


def diloco_bandwidth(ranks: int, size: float, period: int, step_time: float) -> float:
    """2(n-1)/n·size/(period·step_time): mean bytes/s that each rank sends (Douillard 2023, arXiv:2311.08105).

    A model of 1e9 parameters of 2 bytes, 8 replicas, a second per step:

    >>> diloco_bandwidth(8, 2e9, 500, 1.0) / 1e6, diloco_bandwidth(8, 2e9, 1, 1.0) / 1e9
    (7.0, 3.5)
    """
    return all_reduce_bytes(ranks, size) / (period * step_time)


def round_time(size: float, clients: Sequence[tuple[float, float, float]]) -> float:
    """max(size/down + compute + size/up) over the clients of a round, each (down [B/s], compute [s], up [B/s]).

    The server's own link counts as free. One phone with 1 Mbit/s up keeps everybody waiting:

    >>> round_time(25e6, [(1.25e9, 0.0, 1.25e9)] * 99 + [(1.25e9, 0.0, 125e3)])
    200.02
    """
    return max(size / down + compute + size / up for down, compute, up in clients)


def noise_of_sum(clip: float, sigma: float, clients: int) -> float:
    """√n·sigma·clip: deviation per parameter of the noise that n clients add each (McMahan 2018, arXiv:1710.06963).

    >>> noise_of_sum(0.5, 2.0, 4)
    2.0
    """
    return sqrt(clients) * sigma * clip


def _centre(weights: Sequence[float], points: Sequence[float]) -> float:
    return fsum(w * x for w, x in zip(weights, points)) / fsum(weights)
