"""How long something takes on a device: a time, a number of FLOP, operations, or times that were measured.

All have ``flops``: the FLOP per sample, 0 where only times are known.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise

from . import checks
from .clusters.device import Device
from .operations import Operations


@dataclass(frozen=True)
class Seconds:
    """A time that does not depend on anything: ``Seconds(1.0)``."""

    seconds: float = 0.0

    def __post_init__(self) -> None:
        checks.owned(self)
        checks.number("seconds", self.seconds, least=0, of="Seconds")

    @property
    def flops(self) -> float:
        """Nobody knows."""
        return 0.0

    def of(self, samples: float, device: Device) -> float:
        """Seconds for a microbatch of ``samples`` on ``device``."""
        return self.seconds


@dataclass(frozen=True)
class Flops:
    """A time that follows from work: ``per_sample`` [FLOP] at the device's speed [FLOP/s]."""

    per_sample: float

    def __post_init__(self) -> None:
        checks.owned(self)
        checks.number("per_sample", self.per_sample, least=0, of="Flops")

    @property
    def flops(self) -> float:
        """FLOP per sample."""
        return self.per_sample

    def of(self, samples: float, device: Device) -> float:
        """Seconds for a microbatch of ``samples`` on ``device``."""
        return samples * self.per_sample / device.flops


@dataclass(frozen=True)
class Measured:
    """Times measured at several microbatch sizes; in between and beyond, straight lines.

    ``points`` are (samples, seconds), the samples increasing. Raises ValueError unless there is one, and they do.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        sizes = [samples for samples, _ in self.points]
        if not sizes or any(a >= b for a, b in pairwise(sizes)):
            raise ValueError(
                "Measured: points are pairs (samples, seconds), one at least, the samples increasing;"
                f" got points={checks.shown(self.points)}"
            )

    @property
    def flops(self) -> float:
        """Nobody knows."""
        return 0.0

    def of(self, samples: float, device: Device) -> float:
        """Seconds for a microbatch of ``samples``; the device was the one measured."""
        if len(self.points) == 1:
            return self.points[0][1]
        right = min(max(bisect_left(self.points, (samples, 0.0)), 1), len(self.points) - 1)
        (x0, y0), (x1, y1) = self.points[right - 1], self.points[right]
        return max(0.0, y0 + (y1 - y0) * (samples - x0) / (x1 - x0))


@dataclass(frozen=True)
class Scaled:
    """A share of other work: ``Scaled(Flops(1e9), 0.5)``."""

    work: Seconds | Flops | Measured | Operations | Scaled
    factor: float

    @property
    def flops(self) -> float:
        """FLOP per sample."""
        return self.factor * self.work.flops

    def of(self, samples: float, device: Device) -> float:
        """Seconds for a microbatch of ``samples`` on ``device``."""
        return self.factor * self.work.of(samples, device)


Work = Seconds | Flops | Measured | Operations | Scaled

FREE = Seconds()
"""No time at all."""


def shared(work: Work, units: int = 1, tokens: int = 1, experts: int = 1) -> Work:
    """What is left of some work for one rank, where so many split its units, its tokens, its experts.

    Operations become smaller ones, and so less efficient; other work becomes that share of its time. Experts get as
    many tokens as before, from more ranks.

    >>> shared(Flops(8e9), units=4)
    Scaled(work=Flops(per_sample=8000000000.0), factor=0.25)
    """
    if isinstance(work, Operations):
        return work.shared(units, tokens, experts)
    factor = 1 / (units * tokens)
    return work if factor == 1 else Scaled(work, factor)


def in_dtype(work: Work, dtype: str) -> Work:
    """The same work with numbers of another type; times, and FLOP on a device of one speed, stay as they are.

    >>> in_dtype(Scaled(Operations(dtype="fp32"), 0.5), "bf16")
    Scaled(work=Operations(ops=(), dtype='bf16'), factor=0.5)
    """
    if isinstance(work, Scaled):
        return Scaled(in_dtype(work.work, dtype), work.factor)
    return work.in_dtype(dtype) if isinstance(work, Operations) else work
