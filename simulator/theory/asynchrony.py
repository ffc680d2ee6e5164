"""Closed forms of workers that do not wait for each other: stragglers, staleness, stability."""

from __future__ import annotations

from cmath import phase, rect
from collections.abc import Sequence
from math import log, pi, sqrt


def harmonic(n: int) -> float:
    """1 + 1/2 + … + 1/n: the mean of the largest of n exponential times with mean 1.

    So many mean compute times a synchronous step of n such workers takes (Dutta et al. 2018, arXiv:1803.01113).

    >>> round(harmonic(8), 3)
    2.718
    """
    return sum(1 / i for i in range(1, n + 1))


def backup_workers(workers: int, backups: int) -> float:
    """H(n) - H(b): mean time until all but b of n exponential workers with mean 1 are done.

    ``workers`` are all n of them, ``backups`` the b last, for whom nobody waits (Chen et al. 2016, arXiv:1604.00981).

    >>> round(harmonic(96), 3), round(backup_workers(100, backups=4), 3)
    (5.147, 3.104)
    """
    return harmonic(workers) - harmonic(backups)


def async_staleness(workers: int) -> int:
    """N - 1: mean staleness of N workers that are always busy, under any law of compute times.

    In updates. Every update makes each of the N - 1 gradients under way one update older: that is the whole proof.

    >>> async_staleness(8)
    7
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


def largest_stable_rate(staleness: int, momentum: float = 0.0) -> float:
    """The c below which x ← x - c·x(tau steps ago) + beta·(last change of x) converges, c = learning rate × curvature.

    Without ``momentum`` beta it is 2·sin(pi/(2(2·tau+1))). With it, c = -(z - 1)(z - beta)·z^(tau-1) at that z = e^(iθ)
    of the unit circle, the first from θ = 0 on, where this is a positive number: there the first root of
    z^(tau+1) - (1+beta)·z^tau + beta·z^(tau-1) + c leaves the circle.

    Raises ValueError unless 0 <= momentum < 1.

    >>> [round(largest_stable_rate(tau), 3) for tau in (0, 1, 3)]
    [2.0, 1.0, 0.445]
    >>> round(largest_stable_rate(0, momentum=0.9), 3), round(largest_stable_rate(1, momentum=0.9), 3)
    (3.8, 0.1)
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"a momentum is at least 0 and below 1; got momentum={momentum!r}")

    def turned(angle: float) -> float:
        """How far c is turned away from the positive numbers, in radians; it grows with the angle."""
        return angle * (staleness - 0.5) - pi / 2 + phase(rect(1, angle) - momentum)

    low, high = 0.0, pi
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if turned(middle) < 0 else (low, middle)
    return abs(rect(1, high) - 1) * abs(rect(1, high) - momentum)


def best_rate(staleness: int) -> tuple[float, float]:
    """(c, what an update leaves of the distance): tau^tau/(tau+1)^(tau+1) and tau/(tau+1), without momentum.

    With this c = learning rate × curvature, x ← x - c·x(tau steps ago) converges the fastest: there the two largest
    roots of z^(tau+1) - z^tau + c meet. A smaller c creeps, a larger one swings.

    >>> best_rate(1)
    (0.25, 0.5)
    """
    return staleness**staleness / (staleness + 1) ** (staleness + 1), staleness / (staleness + 1)


def implicit_momentum(workers: int) -> tuple[float, float]:
    """(1 - 1/N, 1/N): the momentum, and the share of the learning rate, that asynchrony of N workers amounts to.

    Of workers with exponential times, each as likely to be the next whatever was before, the *mean* of x moves as under
    SGD with this momentum and learning rate (Mitliagkas et al. 2016, arXiv:1605.09774). Single runs also spread.

    >>> implicit_momentum(8)
    (0.875, 0.125)
    """
    return 1 - 1 / workers, 1 / workers
