"""What a law of noise is, and how two of them are one."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

Factor = Callable[[int], float]
"""Called with the step for every computation of one rank; gives what its time is multiplied with."""


@dataclass(frozen=True)
class Noise:
    """A law of compute times. Abstract: use a function of ``simulator.noise``, such as ``gamma``, or write a law.

    >>> class Mondays(Noise):
    ...     def factor(self, rank, seed):
    ...         return lambda step: 1.5 if step % 7 == 0 else 1.0
    >>> factor = Mondays().factor(rank=3, seed=0)
    >>> [factor(step) for step in (0, 1, 7)]
    [1.5, 1.0, 1.5]
    """

    def factor(self, rank: int, seed: object) -> Factor:
        """The factors of one rank; ``seed`` is anything whose text tells it from others."""
        raise NotImplementedError(f"{type(self).__name__} is a Noise: give it a method factor(self, rank, seed)")

    def kind(self, rank: int) -> Hashable | None:
        """What tells a rank's factors from those of others, for ranks to fold; None: each has luck of its own."""
        return None

    def check(self, ranks: int) -> None:
        """Refuse, with a ValueError, what does not fit so many ranks; a law that names none fits all."""

    def __mul__(self, other: Noise) -> Noise:
        if not isinstance(other, Noise):
            return NotImplemented
        return Product(self, other)


@dataclass(frozen=True)
class Fixed(Noise):
    """No noise: every factor is 1."""

    def factor(self, rank: int, seed: object) -> Factor:
        return lambda step: 1.0

    def kind(self, rank: int) -> Hashable | None:
        return 1.0


@dataclass(frozen=True)
class Product(Noise):
    """Two laws at once: their factors multiply. Each draws from a stream of its own."""

    first: Noise
    second: Noise

    def factor(self, rank: int, seed: object) -> Factor:
        first, second = self.first.factor(rank, f"{seed}/first"), self.second.factor(rank, f"{seed}/second")
        return lambda step: first(step) * second(step)

    def kind(self, rank: int) -> Hashable | None:
        both = self.first.kind(rank), self.second.kind(rank)
        return None if None in both else both

    def check(self, ranks: int) -> None:
        self.first.check(ranks)
        self.second.check(ranks)


@dataclass(frozen=True)
class Fastest(Noise):
    """Of so many draws of a law the smallest: a computation is done several times, and the first that is done counts.

    Every copy draws from a stream of its own.
    """

    law: Noise
    copies: int

    def factor(self, rank: int, seed: object) -> Factor:
        draws = [self.law.factor(rank, f"{seed}/copy {copy}") for copy in range(self.copies)]
        return lambda step: min(draw(step) for draw in draws)

    def check(self, ranks: int) -> None:
        self.law.check(ranks)


def drawn(draw: Callable[[], float], per: str) -> Factor:
    """Factors that are drawn anew for every instruction, or one for every step, whoever asks first."""
    if per == "instruction":
        return lambda step: draw()
    known: list[float] = []

    def factor(step: int) -> float:
        while len(known) <= step:  # a stream may still be at a step that its rank has left
            known.append(draw())
        return known[step]

    return factor


def checked(per: str) -> str:
    """How often a law draws. Raises ValueError for anything else."""
    if per not in ("step", "instruction"):
        raise ValueError(f"noise is drawn per 'step' or per 'instruction'; got per={per!r}")
    return per
