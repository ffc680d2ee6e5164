"""How a learning rate changes over a training: functions of the number of updates made so far.

A schedule gives a factor, by which ``rules.Scheduled`` multiplies the learning rate of its rule. Two are combined by
``*``, or put one after the other by ``then``:

>>> schedule = Warmup(4).then(Cosine(10, floor=0.1))
>>> [round(schedule(update), 3) for update in (0, 1, 3, 4, 9, 14, 99)]
[0.25, 0.5, 1.0, 1.0, 0.55, 0.1, 0.1]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import cos, pi

from . import checks


@dataclass(frozen=True)
class Schedule(ABC):
    """A factor for every update. Abstract: use ``Constant``, ``Warmup``, ``Cosine``, ``Steps``, or combine them."""

    @abstractmethod
    def __call__(self, update: int) -> float:
        """The factor of one update; ``update`` counts those before it, from 0."""

    def __mul__(self, other: Schedule) -> Schedule:
        """Both factors multiplied."""
        return Product(self, other) if isinstance(other, Schedule) else NotImplemented

    def then(self, other: Schedule, after: int | None = None) -> Schedule:
        """This for ``after`` updates, then the other from its beginning; None: until this has nothing more to do."""
        return Then(self, other, self.steps_to_do if after is None else after)

    @property
    def steps_to_do(self) -> int:
        """After how many updates the factor no longer changes. Raises ValueError where that never happens."""
        raise ValueError(f"{self} has no end of its own; say when the next begins: then(…, after=1000)")


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

    The last of ``steps`` updates has the full rate, and the first some of it. ``start=256/batch`` begins at the rate
    of a batch of 256, as in Goyal et al. 2017, arXiv:1706.02677.

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


@dataclass(frozen=True)
class Product(Schedule):
    """Two factors multiplied; written ``first * second``.

    >>> (Constant(0.5) * Constant(0.5))(0)
    0.25
    """

    first: Schedule
    second: Schedule

    def __call__(self, update: int) -> float:
        """See ``Schedule``."""
        return self.first(update) * self.second(update)

    @property
    def steps_to_do(self) -> int:
        """See ``Schedule.steps_to_do``."""
        return max(self.first.steps_to_do, self.second.steps_to_do)


@dataclass(frozen=True)
class Then(Schedule):
    """One schedule after the other; written ``first.then(second)``.

    >>> Warmup(10).then(Steps((5,)))(15)
    0.1
    """

    first: Schedule
    second: Schedule
    after: int

    def __post_init__(self) -> None:
        for name in ("first", "second"):
            checks.kind(name, getattr(self, name), Schedule, "a schedule, such as Cosine(100)")
        checks.whole("after", self.after, of="Then")

    def __call__(self, update: int) -> float:
        """See ``Schedule``."""
        return self.first(update) if update < self.after else self.second(update - self.after)

    @property
    def steps_to_do(self) -> int:
        """See ``Schedule.steps_to_do``."""
        return self.after + self.second.steps_to_do


def linear_scaled_lr(batch: int, base_batch: int = 256, base_lr: float = 0.1) -> float:
    """``base_lr · batch / base_batch``: k times the batch, k times the rate (Goyal et al. 2017, arXiv:1706.02677).

    ``batch`` [samples] is the global one. Where it starts from scratch, warm up over the first 5 epochs.

        >>> linear_scaled_lr(8192)
        3.2
    """
    checks.whole("batch", batch, least=1)
    checks.whole("base_batch", base_batch, least=1)
    return checks.number("base_lr", base_lr, above=0) * batch / base_batch


def updates_in(epochs: float, samples: int, batch: int) -> int:
    """How many updates some epochs are: ``epochs · samples / batch``, rounded; at least one.

    >>> updates_in(5, samples=1_281_167, batch=8192)
    782
    """
    checks.whole("samples", samples, least=1)
    return max(1, round(checks.number("epochs", epochs, above=0) * samples / checks.whole("batch", batch, least=1)))
