"""Closed forms: oracles for tests, formulas for lessons. Each with its source; times in seconds, sizes in bytes.

``n`` is the number of ranks, ``size`` the whole buffer [B], ``latency`` per message [s], ``bandwidth`` per direction
and rank [B/s].
"""

from __future__ import annotations

from math import ceil, log2, pi, sin


def ring_all_reduce(n: int, size: float, bandwidth: float, latency: float = 0.0) -> float:
    """2(n-1)·latency + 2(n-1)/n·size/bandwidth (Patarasuk and Yuan 2009).

    >>> ring_all_reduce(8, 100e6, 12.5e9, 10e-6)
    0.01414
    """
    return 2 * (n - 1) * latency + 2 * (n - 1) / n * size / bandwidth


def ring_all_gather(n: int, size: float, bandwidth: float, latency: float = 0.0) -> float:
    """(n-1)·latency + (n-1)/n·size/bandwidth; a reduce-scatter takes the same (Thakur et al. 2005)."""
    return ring_all_reduce(n, size, bandwidth, latency) / 2


def tree_broadcast(n: int, size: float, bandwidth: float, latency: float = 0.0) -> float:
    """ceil(log2 n)·(latency + size/bandwidth): a binomial tree (Thakur et al. 2005)."""
    return ceil(log2(n)) * (latency + size / bandwidth) if n > 1 else 0.0


def parameter_server(workers: int, servers: int, size: float, bandwidth: float) -> float:
    """One way (push or pull) with servers on ranks of their own: max(size, workers·size/servers)/bandwidth.

    Jiang et al. 2020 (BytePS), OSDI.
    """
    return max(size, workers * size / servers) / bandwidth


def pipeline(stages: int, microbatches: int, forward: float, backward: float) -> float:
    """(m + p - 1)(F + B): makespan of GPipe and of 1F1B (Narayanan et al. 2021, arXiv:2104.04473).

    >>> pipeline(4, 8, 1.0, 2.0)
    33.0
    """
    return (microbatches + stages - 1) * (forward + backward)


def naive_pipeline(stages: int, microbatches: int, forward: float, backward: float) -> float:
    """m·p·(F + B): one stage works at a time."""
    return microbatches * stages * (forward + backward)


def bubble_overhead(stages: int, microbatches: int) -> float:
    """(p-1)/m: idle time over *ideal* time. The fraction of wall time is ``bubble_fraction``."""
    return (stages - 1) / microbatches


def bubble_fraction(stages: int, microbatches: int) -> float:
    """(p-1)/(m+p-1): idle time over *wall* time (Huang et al. 2019, arXiv:1811.06965)."""
    return (stages - 1) / (microbatches + stages - 1)


def in_flight(schedule: str, stage: int, stages: int, microbatches: int) -> int:
    """Most microbatches that a stage holds: m under GPipe, min(m, p-s) under 1F1B, 1 under naive."""
    return {"naive": 1, "gpipe": microbatches, "1f1b": min(microbatches, stages - stage)}[schedule]


def harmonic(n: int) -> float:
    """1 + 1/2 + … + 1/n: the mean of the largest of n exponential times with mean 1 (Dutta et al. 2018)."""
    return sum(1 / i for i in range(1, n + 1))


def backup_workers(workers: int, backups: int) -> float:
    """H(n) - H(b): mean time until all but b of n exponential workers are done (Chen et al. 2016)."""
    return harmonic(workers) - harmonic(backups)


def async_staleness(workers: int) -> int:
    """N - 1: mean staleness of N workers that are always busy, under any law of compute times.

    Every update makes each of the N - 1 gradients under way one update older.
    """
    return workers - 1


def largest_stable_rate(staleness: int) -> float:
    """2·sin(pi/(2(2·tau+1))): x ← x - c·x(tau steps ago) converges for smaller c, c = learning rate × curvature.

    >>> round(largest_stable_rate(1), 12)
    1.0
    """
    return 2 * sin(pi / (2 * (2 * staleness + 1)))


def all_reduce_bytes(n: int, size: float) -> float:
    """2(n-1)/n·size: bytes that each rank sends in a ring all-reduce."""
    return 2 * (n - 1) / n * size


def data_parallel_bytes(ranks: int, parameter_bytes: float) -> list[float]:
    """Bytes that each rank sends per step: one all-reduce of all gradients, in however many buckets."""
    return [all_reduce_bytes(ranks, parameter_bytes)] * ranks


def parameter_server_bytes(ranks: int, servers: int, parameters: int, width: int) -> list[float]:
    """Bytes that each rank sends per step: a server its chunk to every worker, a worker all its gradients."""
    workers = ranks - servers
    chunks = [((s + 1) * parameters // servers - s * parameters // servers) * width for s in range(servers)]
    return [*(float(workers * chunk) for chunk in chunks), *([float(parameters * width)] * workers)]


def pipeline_bytes(boundaries: list[float]) -> list[float]:
    """Bytes that each stage sends per step: activations to the next, their gradients to the one before.

    ``boundaries`` are the bytes of the activations between neighbouring stages, over the whole batch.
    """
    return [right + left for right, left in zip([*boundaries, 0.0], [0.0, *boundaries])]
