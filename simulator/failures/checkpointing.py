"""How often to write checkpoints, and what share of time is then useful: closed forms for crashes without memory.

A training works for ``interval``, writes a checkpoint for ``checkpoint``, and so on. ``mtbf`` is M, the mean time
between crashes of the whole system, also while it writes or restarts. All in seconds.
"""

from __future__ import annotations

from math import exp, expm1, inf, sqrt

from .. import checks


def young(mtbf: float, checkpoint: float) -> float:
    """sqrt(2·δ·M): the best interval between checkpoints to first order [s]; δ is ``checkpoint``.

    Raises ValueError unless ``mtbf`` is positive and ``checkpoint`` at least 0. Source: Young 1974, "A first order
    approximation to the optimum checkpoint interval".

        >>> young(mtbf=20_000, checkpoint=100)
        2000.0
    """
    _check(mtbf, checkpoint)
    return sqrt(2 * checkpoint * mtbf)


def daly(mtbf: float, checkpoint: float) -> float:
    """sqrt(2δM)·(1 + sqrt(δ/2M)/3 + (δ/2M)/9) − δ for δ < 2M, else M: the best interval to higher order [s].

    Raises ValueError unless ``mtbf`` is positive and ``checkpoint`` at least 0. Source: Daly 2006, "A higher order
    estimate of the optimum checkpoint interval for restart dumps".

        >>> round(daly(mtbf=20_000, checkpoint=100), 1)
        1933.9
    """
    _check(mtbf, checkpoint)
    if checkpoint >= 2 * mtbf:
        return float(mtbf)
    part = checkpoint / (2 * mtbf)
    return young(mtbf, checkpoint) * (1 + sqrt(part) / 3 + part / 9) - checkpoint


def best_interval(mtbf: float, checkpoint: float) -> float:
    """The interval τ with the largest goodput, exactly: τ/M = 1 − e^(−(τ+δ)/M) [s]. Restarts do not change it.

    Solved by Newton's method from τ = M, where the convex difference of both sides is positive: steps only descend.
    Raises ValueError unless ``mtbf`` is positive and ``checkpoint`` at least 0. Source: the derivative of ``goodput``
    is zero there; the equation is Daly's 2006.

        >>> round(best_interval(mtbf=20_000, checkpoint=100), 1)
        1933.9
    """
    _check(mtbf, checkpoint)
    share, delta = 1.0, checkpoint / mtbf
    while True:
        crashed = -expm1(-share - delta)  # the chance of a crash before the checkpoint is written
        less = share - (share - crashed) / crashed if crashed else 0.0
        if not less < share * (1 - 1e-15):
            return share * mtbf
        share = max(less, 0.0)


def goodput(
    mtbf: float, checkpoint: float, restart: float, interval: float | None = None, detection: float = 0.0
) -> float:
    """The useful share of time: τ / ((M + D)·e^(R/M)·(e^((τ+δ)/M) − 1)), for crashes without memory.

    τ: ``interval``, the best one where None; δ: ``checkpoint``; R: ``restart``; D: ``detection``, until somebody
    notices a crash. A crash loses the work since the last checkpoint, and a crash while restarting (but not while
    nobody has noticed the one before) begins another outage. Without checkpoint costs and interval it is the limit of
    ever shorter intervals.

    With ``mtbf=inf`` nothing crashes. Raises ValueError unless ``mtbf`` and ``interval`` are positive and the others at
    least 0. Source: Daly 2006 for D = 0. An outage lasts D·e^(R/M) + M·(e^(R/M) − 1) on average; that, and M, is paid
    e^((τ+δ)/M) − 1 times.

        >>> round(goodput(mtbf=3.093 * 3600, checkpoint=10, restart=120), 4)
        0.9479
        >>> round(goodput(mtbf=3.093 * 3600, checkpoint=60, restart=300, interval=600), 4)
        0.859
    """
    checks.number("restart", restart, least=0)
    checks.number("detection", detection, least=0)
    if mtbf == inf:  # nothing ever crashes: only checkpoints cost time
        _check(1.0, checkpoint)
        return 1.0 if interval is None else 1 / (1 + checkpoint / checks.number("interval", interval, above=0))
    _check(mtbf, checkpoint)
    tau = best_interval(mtbf, checkpoint) if interval is None else checks.number("interval", interval, above=0)
    up = mtbf / (mtbf + detection) * exp(-restart / mtbf)
    if not tau:
        return up
    cycle = (tau + checkpoint) / mtbf
    return up * tau / mtbf * exp(-cycle) / -expm1(-cycle)  # e^x − 1 itself overflows for hopeless intervals


def first_order_goodput(mtbf: float, checkpoint: float, restart: float) -> float:
    """1 − sqrt(2δ/M) − R/M: what ``goodput`` with the best interval is to first order; pessimistic.

    Raises ValueError unless ``mtbf`` is positive and the others at least 0. Source: Young 1974.

        >>> round(first_order_goodput(mtbf=20_000, checkpoint=100, restart=200), 2)
        0.89
    """
    _check(mtbf, checkpoint)
    return 1 - sqrt(2 * checkpoint / mtbf) - checks.number("restart", restart, least=0) / mtbf


def _check(mtbf: float, checkpoint: float) -> None:
    checks.number("mtbf", mtbf, above=0)
    checks.number("checkpoint", checkpoint, least=0)
