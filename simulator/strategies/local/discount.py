"""What an update counts that comes late: functions of its staleness, for ``FedAsync`` and ``FedBuff``."""

from __future__ import annotations

from dataclasses import dataclass

from ... import checks


@dataclass(frozen=True)
class ConstantWeight:
    """1, however late.

    >>> ConstantWeight()(7)
    1.0
    """

    def __call__(self, staleness: int) -> float:
        """The weight at a staleness [updates]."""
        return 1.0


@dataclass(frozen=True)
class PolynomialWeight:
    """``(1 + τ)^(−power)`` at staleness τ (Xie et al. 2019, arXiv:1903.03934).

    >>> round(PolynomialWeight(0.5)(4), 3)
    0.447
    """

    power: float = 0.5

    def __post_init__(self) -> None:
        checks.number("power", self.power, least=0, of="PolynomialWeight")

    def __call__(self, staleness: int) -> float:
        """The weight at a staleness [updates]."""
        return float((1 + staleness) ** -self.power)


@dataclass(frozen=True)
class HingeWeight:
    """1 up to staleness ``grace``, then ``1 / (slope · (τ − grace) + 1)`` (Xie et al. 2019, arXiv:1903.03934).

    >>> HingeWeight(10, 4)(4), round(HingeWeight(10, 4)(15), 5)
    (1.0, 0.00901)
    """

    slope: float = 10.0
    grace: int = 4

    def __post_init__(self) -> None:
        checks.number("slope", self.slope, least=0, of="HingeWeight")
        checks.whole("grace", self.grace, of="HingeWeight, in updates")

    def __call__(self, staleness: int) -> float:
        """The weight at a staleness [updates]."""
        return 1.0 if staleness <= self.grace else 1 / (self.slope * (staleness - self.grace) + 1)


Weight = ConstantWeight | PolynomialWeight | HingeWeight


USUAL: Weight = PolynomialWeight(0.5)
"""1 / √(1 + τ)."""


def check_weight(of: str, weight: object) -> None:
    """Raise ValueError unless it is one of these."""
    if not isinstance(weight, Weight):
        raise ValueError(f"{of}: weight is one of ConstantWeight, PolynomialWeight, HingeWeight; got weight={weight!r}")
