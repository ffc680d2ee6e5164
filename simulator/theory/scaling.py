"""Closed forms of scaling: how much faster more ranks are, and what data parallelism needs to stay efficient.

``ranks`` is n, ``size`` the bytes of all gradients, ``latency`` per message [s], ``bandwidth`` of each rank [B/s]. A
step computes, then averages its gradients around a ring, with no overlap.
"""

from __future__ import annotations

from .all_reduces import ring_all_reduce


def amdahl(serial: float, ranks: int) -> float:
    """1/(f + (1-f)/n): how many times as fast n ranks do the *same* work (Amdahl 1967).

    ``serial`` is f, the share of the time of *one* rank that does not shrink with more.

    >>> round(amdahl(0.01, 64), 2), round(amdahl(0.05, 64), 2)
    (39.26, 15.42)
    """
    return 1 / (serial + (1 - serial) / ranks)


def gustafson(serial: float, ranks: int) -> float:
    """n - f(n-1): how many times as fast as one rank n ranks do n times the work (Gustafson 1988).

    ``serial`` is f, the share of the time of *n* ranks that does not shrink with more.

    >>> round(gustafson(0.01, 64), 2), round(gustafson(0.05, 64), 2)
    (63.37, 60.85)
    """
    return ranks - serial * (ranks - 1)


def weak_efficiency(ranks: int, compute: float, size: float, bandwidth: float, latency: float = 0.0) -> float:
    """t/(t + ring): the share of a step in which ranks compute, if each has t = ``compute`` seconds of work.

    Without latency it falls towards t/(t + 2·size/bandwidth), which is not 0: a ring costs each rank less than two
    times the gradients, however many ranks there are (see ``ring_all_reduce``).

    >>> [round(weak_efficiency(n, 1.0, 1e9, 2e9), 3) for n in (2, 8, 1024)]
    [0.667, 0.533, 0.5]
    """
    return compute / (compute + ring_all_reduce(ranks, size, bandwidth, latency))


def isoefficiency(ranks: int, efficiency: float, size: float, bandwidth: float, latency: float = 0.0) -> float:
    """E/(1-E)·2(n-1)(latency + size/(n·bandwidth)): seconds that each rank must compute to stay as efficient.

    Of its two parts, that of bandwidth stays below 2·E/(1-E)·size/bandwidth, and that of latency grows with n
    (after Grama, Gupta and Kumar 1993).

    >>> isoefficiency(8, 0.5, 1e9, 2e9), weak_efficiency(8, 0.875, 1e9, 2e9)
    (0.875, 0.5)
    """
    return efficiency / (1 - efficiency) * ring_all_reduce(ranks, size, bandwidth, latency)
