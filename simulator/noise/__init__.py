"""Noise: laws of how long a computation really takes. They multiply: ``gamma(4) * slow({0: 3})``.

A law gives factors that multiply a rank's compute times: one factor per step, or, with ``per="instruction"``, a new
one for every instruction. Random laws have mean 1, except those of stragglers. Draws depend on the seed and the rank
alone, so adding a rank never changes another's luck.

>>> law = silicon(cv=0.02) * lognormal(sigma=0.1) * transient(3.0, lasts=5, between=95)
>>> few, many = ([law.factor(rank, seed=7)(0) for rank in range(ranks)] for ranks in (2, 4))
>>> few == many[:2]
True
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import fsum

from .. import checks
from .jitter import Gamma, Lognormal, Measured, Normal, Pareto
from .law import Factor, Fastest, Fixed, Noise, Product, checked
from .stragglers import Silicon, Slow, Transient

__all__ = [
    "Factor", "Fastest", "Fixed", "Gamma", "Lognormal", "Measured", "Noise", "Normal", "Pareto", "Product", "Silicon",
    "Slow", "Transient", "duplicated", "exponential", "fixed", "gamma", "lognormal", "measured", "normal", "pareto",
    "silicon", "slow", "transient",
]  # fmt: skip

WIDEST = 1 / 3
"""Of normal laws; with a wider one, what is cut off to keep times positive would count."""

# ---------------------------------------------------------------- jitter


def fixed() -> Noise:
    """Every computation takes exactly its time.

    >>> fixed().factor(rank=0, seed=0)(5)
    1.0
    """
    return Fixed()


def exponential(per: str = "step") -> Noise:
    """Exponentially distributed times with mean 1: very noisy, and without memory.

    A synchronous step of N workers then takes ``theory.harmonic(N)`` mean times.

    >>> exponential()
    Gamma(shape=1.0, per='step')
    """
    return gamma(1.0, per)


def gamma(shape: float, per: str = "step") -> Noise:
    """Gamma-distributed times with mean 1 and standard deviation 1/sqrt(shape). Raises ValueError unless it is > 0.

    >>> gamma(4)
    Gamma(shape=4.0, per='step')
    """
    return Gamma(checks.number("shape", shape, above=0, of="gamma"), checked(per))


def lognormal(sigma: float, per: str = "step") -> Noise:
    """Log-normally distributed times with mean 1; ``sigma`` ≥ 0 is the standard deviation of their logarithm.

    >>> lognormal(0.5)
    Lognormal(sigma=0.5, per='step')
    """
    return Lognormal(checks.number("sigma", sigma, least=0, of="lognormal"), checked(per))


def normal(cv: float, per: str = "step") -> Noise:
    """Normally distributed times with mean 1 and standard deviation ``cv``, at most 1/3; cut off at 0 and at 2.

    The slowest of N takes 1 + cv·sqrt(2 ln N) at most, in the mean.

    >>> normal(0.1)
    Normal(cv=0.1, per='step')
    """
    return Normal(_narrow("normal", cv), checked(per))


def pareto(tail: float, per: str = "step") -> Noise:
    """Times with a heavy tail and mean 1: few are very long. ``tail`` > 1 is its index; small ones are heavy.

    >>> pareto(2.5)
    Pareto(tail=2.5, per='step')
    """
    return Pareto(checks.number("tail", tail, above=1, of="pareto"), checked(per))


def measured(times: Sequence[float], per: str = "step") -> Noise:
    """Times as they were measured, in any unit, divided by their mean; each is drawn as often as it was measured.

    >>> measured([2.0, 2.0, 5.0]).factors
    (0.6666666666666666, 0.6666666666666666, 1.6666666666666667)
    """
    given = checks.several("times", times, "a list of times, as in measured([2.0, 2.0, 5.0])")
    found = [checks.number("times", time, least=0, of="measured") for time in given]
    if not fsum(found) > 0:
        raise ValueError(f"measured: times are at least one, and not all 0; got times={given!r}")
    return Measured(tuple(time * len(found) / fsum(found) for time in found), checked(per))


def duplicated(law: Noise, copies: int = 2) -> Noise:
    """Every computation is done ``copies`` times, each with luck of its own, and the first that is done counts.

    So schedulers fight stragglers with speculative execution (Dean and Ghemawat 2004); the copies' devices are not
    simulated. Of exponential times the mean becomes 1/copies; of Pareto ones the tail index ``copies`` times as large.

    >>> duplicated(exponential(), copies=3)
    Fastest(law=Gamma(shape=1.0, per='step'), copies=3)
    """
    checks.kind("law", law, Noise, "a law such as noise.exponential()")
    return Fastest(law, checks.whole("copies", copies, least=1, of="duplicated"))


# ---------------------------------------------------------------- stragglers


def slow(factors: Mapping[int, float], steps: Iterable[int] | None = None) -> Noise:
    """Stragglers by name. ``slow({0: 4})``: rank 0 takes four times as long; with ``steps``, in these alone.

    >>> factor = slow({2: 4.0}, steps=range(10, 20)).factor(rank=2, seed=0)
    >>> factor(9), factor(10)
    (1.0, 4.0)
    """
    checks.kind("slow", factors, Mapping, "a dict from ranks to factors, as in slow({0: 4})")
    for rank, factor in factors.items():
        checks.whole("rank", rank, of="slow")
        checks.number("factor", factor, above=0, of="slow")
    named = () if steps is None else checks.several("steps", steps, "the numbers of some steps, as range(10, 20)")
    when = None if steps is None else frozenset(checks.whole("steps", step, of="slow") for step in named)
    return Slow(tuple(sorted(factors.items())), when)


def transient(factor: float, lasts: float, between: float) -> Noise:
    """Every rank is a straggler now and then: ``factor`` times as slow for ``lasts`` steps, then well for ``between``.

    Both are means, in steps, at least 1; it is slow in lasts/(lasts + between) of all steps.

    >>> transient(3.0, lasts=5, between=95)
    Transient(slowdown=3.0, lasts=5.0, between=95.0)
    """
    return Transient(
        checks.number("factor", factor, above=0, of="transient"),
        checks.number("lasts", lasts, least=1, of="transient, in steps"),
        checks.number("between", between, least=1, of="transient, in steps"),
    )


def silicon(cv: float = 0.02) -> Noise:
    """Devices of one kind differ, for good: by 1 to 3 % (``cv``) where all are healthy. Synchronous steps wait.

    >>> factor = silicon().factor(rank=0, seed=0)
    >>> factor(0) == factor(1000) != silicon().factor(rank=1, seed=0)(0)
    True
    """
    return Silicon(_narrow("silicon", cv))


def _narrow(of: str, cv: float) -> float:
    if checks.number("cv", cv, least=0, of=of) > WIDEST:
        raise ValueError(f"{of}: cv is at most 1/3, so that times stay positive; got cv={cv!r}: use gamma or lognormal")
    return float(cv)
