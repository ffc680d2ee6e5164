"""How long something takes on a device: a time, a number of FLOP, operations, or times that were measured.

All have ``flops``: the FLOP per sample, 0 where only times are known.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise

from . import checks
from .clusters.device import Device
from .operations import MatMul, Operations

POINTS = "pairs (samples, seconds), one at least, the samples increasing"


@dataclass(frozen=True)
class Seconds:
    """A time [s] that does not depend on anything. Raises ValueError for one below 0.

    >>> Seconds(1.5).of(samples=8, device=Device())
    1.5
    """

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
    """A time that follows from work: ``per_sample`` [FLOP] at the device's speed [FLOP/s]. A MAC is two FLOP.

    >>> Flops(3e9).of(samples=8, device=Device(flops=1e12))
    0.024
    """

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

    >>> Measured(((1.0, 0.5), (5.0, 1.5))).of(samples=3, device=Device())
    1.0
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        pairs = [checks.several("points", pair, POINTS) for pair in checks.several("points", self.points, POINTS)]
        for number in (number for pair in pairs for number in pair):
            checks.number("points", number, least=0, of="Measured")
        if not pairs or any(len(pair) != 2 for pair in pairs) or any(a >= b for (a, _), (b, _) in pairwise(pairs)):
            raise ValueError(f"Measured: points are {POINTS}; got points={checks.shown(self.points)}")

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


def require_work(name: str, work: object, of: str) -> None:
    """Raise ValueError for what says nothing of how long something takes."""
    if not isinstance(work, Work):
        raise ValueError(
            f"{of}: {name} says how long something takes, as Seconds(0.1), Flops(1e9), Measured(…) or Operations(…) do;"
            f" got {name}={checks.shown(work)}"
        )


def shared(work: Work, units: int = 1, tokens: float = 1, experts: int = 1) -> Work:
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


def dtypes_of(work: Work) -> set[str]:
    """The dtypes of its products of matrices; none where only a time or FLOP are known.

    >>> sorted(dtypes_of(Operations((MatMul(2, 2, 2), MatMul(2, 2, 2, dtype="bf16")), "fp8"))), dtypes_of(Seconds(1.0))
    (['bf16', 'fp8'], set())
    """
    if isinstance(work, Scaled):
        return dtypes_of(work.work)
    if not isinstance(work, Operations):
        return set()
    return {op.dtype or work.dtype for op in work.ops if isinstance(op, MatMul) and op.flops}
