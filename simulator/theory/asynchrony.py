"""Closed forms of workers that do not wait for each other: stragglers, staleness, stability."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, pi, sin, sqrt


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


def async_staleness_of(rates: Sequence[float], worker: int) -> float:
    """(Σ_j mu_j - mu_i)/mu_i: mean staleness of worker i's gradients, of workers with ``rates`` mu [steps/s].

    It is what the others do in one of its steps. Its own mean over all gradients is N - 1.

    >>> async_staleness_of([1.0, 1.0, 0.25], worker=2)
    8.0
    """
    return (sum(rates) - rates[worker]) / rates[worker]


def slowest_normal(workers: int, cv: float) -> float:
    """1 + cv·sqrt(2 ln N): what the mean of the slowest of N normal times with mean 1 does not exceed.

    >>> round(slowest_normal(64, cv=0.1), 3)
    1.288
    """
    return 1 + cv * sqrt(2 * log(workers))


def largest_stable_rate(staleness: int) -> float:
    """2·sin(pi/(2(2·tau+1))): x ← x - c·x(tau steps ago) converges for smaller c, c = learning rate × curvature.

    >>> round(largest_stable_rate(1), 12)
    1.0
    """
    return 2 * sin(pi / (2 * (2 * staleness + 1)))
