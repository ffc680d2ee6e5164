"""What a collective costs by one algorithm, laid over the links of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from .carrying import alone
from .cluster import Link
from .laying import Laid


@dataclass(frozen=True, eq=False)
class Plan:
    """A collective on a cluster. ``stages``: (seconds of latency, bytes per link for one byte of the value).

    - ``sent``: bytes that each member sends for one byte of the value, in the order of the members.
    - ``base`` [s]: what the first latency has once, whatever is sent.
    - ``lay``: the messages of a value of so many bytes on its way, laid over the links.
    - ``played``: whether these must say how long it takes: those that go in pieces along chains, and stages of which
      some ranks are sooner done than others. ``corrections``: as of its protocol.
    """

    name: str
    stages: tuple[tuple[float, Mapping[Link, float]], ...]
    sent: tuple[float, ...]
    latency: float
    slowness: float
    fraction: float
    base: float
    lay: Callable[[float], Laid]
    played: bool = False
    corrections: tuple[float, ...] = ()
    known: dict[float, float] = field(default_factory=dict, repr=False)

    def seconds(self, size: float) -> float:
        """How long it takes for a value of ``size`` bytes, alone on its links."""
        return self.rated(size) + self.filling(size)

    def rated(self, size: float) -> float:
        """The same without ``filling``: latency, and bytes on the busiest link."""
        return self.latency + size / self.fraction * self.slowness

    def promised(self, size: float) -> float:
        """What NCCL expects it to take, by which it chooses."""
        place = min(int(size) // 64, 2 ** len(self.corrections)).bit_length() - 1
        share = self.corrections[max(place, 0)] if self.corrections and place < len(self.corrections) else 1.0
        return self.latency + size / self.fraction / share * self.slowness

    def filling(self, size: float) -> float:
        """How much longer it takes because pieces reach one link after another, or ranks wait for slow ones [s].

        Less than nothing where some ranks go on while others are in the stage before.
        """
        if not self.played or not size:
            return 0.0
        if size not in self.known:
            wire = size / self.fraction
            played = self.base + alone(self.lay(wire), wire)
            self.known[size] = played - self.rated(size)
        return self.known[size]

    @cached_property
    def together(self) -> Mapping[Link, float]:
        """What every link carries in all stages."""
        found: dict[Link, float] = {}
        for link, share in (one for _, path in self.stages for one in path.items()):
            found[link] = found.get(link, 0.0) + share
        return found
