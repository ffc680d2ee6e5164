"""Stragglers: ranks that are slower than others, always or for a stretch. Their mean is above 1."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from random import Random

from .jitter import near_one
from .law import Factor, Noise, drawn


@dataclass(frozen=True)
class Slow(Noise):
    """The ranks named take ``factor`` times as long, in every step or in those named."""

    ranks: tuple[tuple[int, float], ...]
    steps: frozenset[int] | None = None

    def factor(self, rank: int, seed: object) -> Factor:
        factor, steps = self._by.get(rank, 1.0), self.steps
        if steps is None:
            return lambda step: factor
        return lambda step: factor if step in steps else 1.0

    def kind(self, rank: int) -> Hashable | None:
        return self._by.get(rank, 1.0)

    @cached_property
    def _by(self) -> dict[int, float]:
        return dict(self.ranks)

    def check(self, ranks: int) -> None:
        absent = [rank for rank, _ in self.ranks if rank >= ranks]
        if absent:
            raise ValueError(f"slow: ranks are numbered 0 to {ranks - 1}; got {absent[0]}: name ranks that are there")


@dataclass(frozen=True)
class Transient(Noise):
    """A rank is slow for ``lasts`` steps in the mean, and then as fast as others for ``between`` steps.

    Each is a geometric number of steps, so that a chain of two states moves from step to step; it begins in its steady
    state.
    """

    slowdown: float
    lasts: float
    between: float

    def factor(self, rank: int, seed: object) -> Factor:
        draw = Random(f"transient {seed} {rank}").random
        slow = draw() < self.lasts / (self.lasts + self.between)

        def now() -> float:
            nonlocal slow
            factor = self.slowdown if slow else 1.0
            slow = draw() >= 1 / self.lasts if slow else draw() < 1 / self.between
            return factor

        return drawn(now, "step")


@dataclass(frozen=True)
class Silicon(Noise):
    """Devices of one kind that are not alike: one factor for each rank, 1 + cv·z, in all steps."""

    cv: float

    def factor(self, rank: int, seed: object) -> Factor:
        factor = near_one(Random(f"silicon {seed} {rank}").gauss, self.cv)
        return lambda step: factor
