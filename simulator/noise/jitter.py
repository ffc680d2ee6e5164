"""Jitter: laws with mean 1, whose draws know nothing of each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp
from random import Random

from .law import Factor, Noise, drawn


@dataclass(frozen=True)
class Gamma(Noise):
    """Gamma with mean 1 and the given shape; its standard deviation is 1/sqrt(shape). Shape 1: exponential."""

    shape: float
    per: str = "step"

    def factor(self, rank: int, seed: object) -> Factor:
        draw = Random(f"gamma {seed} {rank}").gammavariate
        return drawn(lambda: draw(self.shape, 1 / self.shape), self.per)


@dataclass(frozen=True)
class Lognormal(Noise):
    """exp(sigma*z - sigma²/2) with z standard normal: mean 1."""

    sigma: float
    per: str = "step"

    def factor(self, rank: int, seed: object) -> Factor:
        draw = Random(f"lognormal {seed} {rank}").gauss
        return drawn(lambda: exp(draw(-self.sigma * self.sigma / 2, self.sigma)), self.per)


@dataclass(frozen=True)
class Normal(Noise):
    """1 + cv·z with z standard normal; what is not between 0 and 2 is drawn again, which keeps the mean 1."""

    cv: float
    per: str = "step"

    def factor(self, rank: int, seed: object) -> Factor:
        draw = Random(f"normal {seed} {rank}").gauss
        return drawn(lambda: near_one(draw, self.cv), self.per)


@dataclass(frozen=True)
class Pareto(Noise):
    """P(factor > x) = (least/x)^tail, least = (tail - 1)/tail: mean 1, and no variance where tail is 2 or less."""

    tail: float
    per: str = "step"

    def factor(self, rank: int, seed: object) -> Factor:
        draw, least = Random(f"pareto {seed} {rank}").paretovariate, (self.tail - 1) / self.tail
        return drawn(lambda: least * draw(self.tail), self.per)


@dataclass(frozen=True)
class Measured(Noise):
    """Factors that were measured, drawn as often as they occurred."""

    factors: tuple[float, ...]
    per: str = "step"

    def factor(self, rank: int, seed: object) -> Factor:
        draw = Random(f"measured {seed} {rank}").choice
        return drawn(lambda: draw(self.factors), self.per)


def near_one(draw: Callable[[float, float], float], cv: float) -> float:
    """A normal number around 1 that is between 0 and 2."""
    while True:
        factor = draw(1.0, cv)
        if 0 < factor < 2:
            return factor
