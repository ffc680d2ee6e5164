"""Noise: laws of how long a computation really takes. They multiply: ``gamma(4) * slow({0: 3})``.

A law gives factors that multiply a rank's compute times: one factor per step, or, with ``per="instruction"``, a new
one for every instruction. Random laws have mean 1. Draws depend on the seed and the rank alone, so adding a rank
never changes another's luck.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import exp
from random import Random

from . import checks

Factor = Callable[[int], float]
"""Called with the step for every computation of one rank; gives what its time is multiplied with."""


@dataclass(frozen=True)
class Noise:
    """A law of compute times. Abstract: use ``fixed``, ``exponential``, ``gamma``, ``lognormal`` or ``slow``."""

    def factor(self, rank: int, seed: object) -> Factor:
        """The factors of one rank; ``seed`` is anything whose text tells it from others."""
        raise NotImplementedError

    def __mul__(self, other: Noise) -> Noise:
        if not isinstance(other, Noise):
            return NotImplemented
        return Product(self, other)


@dataclass(frozen=True)
class Fixed(Noise):
    """No noise: every factor is 1."""

    def factor(self, rank: int, seed: object) -> Factor:
        return lambda step: 1.0


@dataclass(frozen=True)
class Slow(Noise):
    """Persistent stragglers: the ranks named take ``factor`` times as long in every step."""

    ranks: tuple[tuple[int, float], ...]

    def factor(self, rank: int, seed: object) -> Factor:
        always = dict(self.ranks).get(rank, 1.0)
        return lambda step: always


@dataclass(frozen=True)
class Gamma(Noise):
    """Gamma with mean 1 and the given shape; its standard deviation is 1/sqrt(shape). Shape 1: exponential."""

    shape: float
    per: str = "step"

    def factor(self, rank: int, seed: object) -> Factor:
        draw = Random(f"gamma {seed} {rank}").gammavariate
        return _drawn(lambda: draw(self.shape, 1 / self.shape), self.per)


@dataclass(frozen=True)
class Lognormal(Noise):
    """exp(sigma*z - sigma²/2) with z standard normal: mean 1."""

    sigma: float
    per: str = "step"

    def factor(self, rank: int, seed: object) -> Factor:
        draw = Random(f"lognormal {seed} {rank}").gauss
        return _drawn(lambda: exp(draw(-self.sigma * self.sigma / 2, self.sigma)), self.per)


@dataclass(frozen=True)
class Product(Noise):
    """Two laws at once: their factors multiply. Each draws from a stream of its own."""

    first: Noise
    second: Noise

    def factor(self, rank: int, seed: object) -> Factor:
        first, second = self.first.factor(rank, f"{seed}/first"), self.second.factor(rank, f"{seed}/second")
        return lambda step: first(step) * second(step)


def _drawn(draw: Callable[[], float], per: str) -> Factor:
    if per == "instruction":
        return lambda step: draw()
    drawn: list[float] = []

    def factor(step: int) -> float:
        while len(drawn) <= step:  # a stream may still be at a step that its rank has left
            drawn.append(draw())
        return drawn[step]

    return factor


def fixed() -> Noise:
    """Every computation takes exactly its time."""
    return Fixed()


def exponential(per: str = "step") -> Noise:
    """Exponentially distributed times with mean 1: very noisy, and without memory."""
    return gamma(1.0, per)


def gamma(shape: float, per: str = "step") -> Noise:
    """Gamma-distributed times with mean 1 and standard deviation 1/sqrt(shape)."""
    return Gamma(checks.number("shape", shape, above=0, of="gamma"), _checked(per))


def lognormal(sigma: float, per: str = "step") -> Noise:
    """Log-normally distributed times with mean 1; ``sigma`` is the standard deviation of their logarithm."""
    return Lognormal(checks.number("sigma", sigma, least=0, of="lognormal"), _checked(per))


def slow(factors: Mapping[int, float]) -> Noise:
    """Persistent stragglers. ``slow({0: 4})``: rank 0 takes four times as long."""
    checks.kind("slow", factors, Mapping, "a dict from ranks to factors, as in slow({0: 4})")
    for rank, factor in factors.items():
        checks.whole("rank", rank, of="slow")
        checks.number("factor", factor, above=0, of="slow")
    return Slow(tuple(sorted(factors.items())))


def _checked(per: str) -> str:
    if per not in ("step", "instruction"):
        raise ValueError(f"noise is drawn per 'step' or per 'instruction'; got per={per!r}")
    return per
