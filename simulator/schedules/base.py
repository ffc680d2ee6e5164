"""What every schedule can do, and how two become one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from .. import checks


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
class Product(Schedule):
    """Two factors multiplied; written ``first * second``.

    >>> from simulator.schedules import Constant
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

    >>> from simulator.schedules import Steps, Warmup
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
