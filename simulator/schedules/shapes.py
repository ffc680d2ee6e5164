"""Schedules that are not made of others."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi

from .. import checks
from .base import Schedule


@dataclass(frozen=True)
class Constant(Schedule):
    """The same factor always.

    >>> Constant(0.5)(100)
    0.5
    """

    factor: float = 1.0

    def __post_init__(self) -> None:
        checks.number("factor", self.factor, least=0, of="Constant")

    def __call__(self, update: int) -> float:
        """See ``Schedule``."""
        return self.factor


@dataclass(frozen=True)
class Warmup(Schedule):
    """From ``start`` up to 1 in ``steps`` equal steps: ``start + (1 − start) · (k + 1) / steps``.

    The last of ``steps`` updates has the full rate, and the first is one step above ``start``. ``start=256/batch`` sets
    out from the rate of a batch of 256, as in Goyal et al. 2017, arXiv:1706.02677.

        >>> [Warmup(4)(update) for update in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    steps: int
    start: float = 0.0

    def __post_init__(self) -> None:
        checks.whole("steps", self.steps, least=1, of="Warmup")
        checks.number("start", self.start, least=0, of="Warmup")

    def __call__(self, update: int) -> float:
        """See ``Schedule``."""
        return self.start + (1 - self.start) * min(update + 1, self.steps) / self.steps

    @property
    def steps_to_do(self) -> int:
        """See ``Schedule.steps_to_do``."""
        return self.steps


@dataclass(frozen=True)
class Cosine(Schedule):
    """From 1 down to ``floor`` along half a cosine: ``floor + (1 − floor) · (1 + cos(π k / steps)) / 2``.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983.

        >>> [round(Cosine(4)(update), 3) for update in range(6)]
        [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """

    steps: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        checks.whole("steps", self.steps, least=1, of="Cosine")
        checks.number("floor", self.floor, least=0, of="Cosine")

    def __call__(self, update: int) -> float:
        """See ``Schedule``."""
        return self.floor + (1 - self.floor) * (1 + cos(pi * min(update, self.steps) / self.steps)) / 2

    @property
    def steps_to_do(self) -> int:
        """See ``Schedule.steps_to_do``."""
        return self.steps + 1


@dataclass(frozen=True)
class Steps(Schedule):
    """Multiplied by ``factor`` at each of the ``milestones``, which are numbers of updates.

    >>> [round(Steps((2, 4))(update), 3) for update in range(5)]
    [1.0, 1.0, 0.1, 0.1, 0.01]
    """

    milestones: tuple[int, ...]
    factor: float = 0.1

    def __post_init__(self) -> None:
        checks.kind("milestones", self.milestones, (tuple, list), "a list of numbers of updates, such as (100, 200)")
        object.__setattr__(self, "milestones", tuple(self.milestones))  # a list has no hash
        for milestone in self.milestones:
            checks.whole("milestone", milestone, of="Steps")
        checks.number("factor", self.factor, least=0, of="Steps")

    def __call__(self, update: int) -> float:
        """See ``Schedule``."""
        return float(self.factor ** sum(milestone <= update for milestone in self.milestones))

    @property
    def steps_to_do(self) -> int:
        """See ``Schedule.steps_to_do``."""
        return max(self.milestones, default=0) + 1
