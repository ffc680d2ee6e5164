"""Mean and confidence interval of a few observations."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, fsum, nan, pi, sin, sqrt, tan

LEVEL = 0.95


def interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float, float]:
    """(mean, lowest, highest): mean ± t·s/√n, with Student's t of n - 1 degrees of freedom (Student 1908).

    Where all values agree, or there is but one, they say nothing of how they spread: the bounds are NaN.

    >>> [round(number, 3) for number in interval([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484]
    """
    n = len(values)
    if not min(values) < max(values):  # or nobody knows them
        return values[0], nan, nan
    mean = fsum(values) / n
    spread = sqrt(fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = student(level, n - 1) * spread / sqrt(n)
    return mean, mean - half, mean + half


def student(level: float, freedom: int) -> float:
    """The t within which ±t holds ``level`` of Student's distribution with so many degrees of freedom.

    >>> [round(student(0.95, freedom), 3) for freedom in (1, 4, 30)]
    [12.706, 2.776, 2.042]
    """
    low, high = 0.0, pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, freedom) < level else (low, middle)
    return sqrt(freedom) * tan(low)


def _inside(angle: float, freedom: int) -> float:
    """The part of the distribution between ±√freedom·tan(angle): a finite sum (Abramowitz and Stegun 26.7.3-4)."""
    odd = freedom % 2
    term = total = cos(angle) if odd else 1.0
    for k in range(2 if odd else 1, freedom - 2, 2):
        term *= k / (k + 1) * cos(angle) ** 2
        total += term
    if odd:
        return 2 / pi * (angle + (sin(angle) * total if freedom > 1 else 0.0))
    return sin(angle) * total
