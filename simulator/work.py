"""How long something takes on a device: a time, a number of operations, or times that were measured."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from .cluster import Device


@dataclass(frozen=True)
class Seconds:
    """A time that does not depend on anything: ``Seconds(1.0)``."""

    seconds: float = 0.0

    def of(self, samples: float, device: Device) -> float:
        """Seconds for a microbatch of ``samples`` on ``device``."""
        return self.seconds


@dataclass(frozen=True)
class Flops:
    """A time that follows from work: ``per_sample`` [FLOP] at the device's speed [FLOP/s]."""

    per_sample: float

    def of(self, samples: float, device: Device) -> float:
        """Seconds for a microbatch of ``samples`` on ``device``."""
        return samples * self.per_sample / device.flops


@dataclass(frozen=True)
class Measured:
    """Times measured at several microbatch sizes; in between and beyond, straight lines.

    ``points`` are (samples, seconds), the samples increasing.
    """

    points: tuple[tuple[float, float], ...]

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

    work: Seconds | Flops | Measured | Scaled
    factor: float

    def of(self, samples: float, device: Device) -> float:
        """Seconds for a microbatch of ``samples`` on ``device``."""
        return self.factor * self.work.of(samples, device)


Work = Seconds | Flops | Measured | Scaled

FREE = Seconds()
"""No time at all."""
