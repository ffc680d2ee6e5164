"""How machines crash and what is done about it: the knobs of a long training."""

from __future__ import annotations

from dataclasses import dataclass
from math import gamma, inf
from random import Random

from .. import checks
from . import checkpointing

ELASTIC = ("wait", "accumulate", "rescale")


@dataclass(frozen=True)
class Failures:
    """Crashes, and the ways around them. Times in seconds.

    - ``mtbf``: mean time between crashes of one device, with ``devices`` of them in each node; inf for none.
    - ``common_mtbf``: of what stops the job and leaves all nodes well, whatever their number (software, network).
    - ``shape``: of the Weibull law of times between crashes: 1 has no memory, below 1 crashes come in bunches.
    - ``detection``: from a crash until it is noticed; ``restart``: from then until the next step begins.
    - ``checkpoint``: what writing one takes, while nothing is computed; ``interval``: work between them, in whole
      steps; None is the best for all nodes.
    - ``spares``: nodes that wait to take a crashed one's place; ``repair``: until a crashed node is a spare itself, 0
      where a restart is all it needs, inf for never.
    - ``elastic``: what is done without enough nodes. "wait" for a repair; "accumulate": go on with those left and the
      same global batch, so that steps take longer; "rescale": keep each node's share, so that the batch shrinks and
      the learning rate with it (see ``rescaled_rate``). Returning nodes join after the next checkpoint, for another
      ``restart``. ``least``: with fewer nodes it waits.

    Devices crash while the job works, writes or restarts; not while it hangs unnoticed or waits, and spares never do.
    Raises ValueError for values outside these meanings.

        >>> law = Failures(mtbf=5e7, devices=8, checkpoint=30, restart=120)
        >>> law.system_mtbf(nodes=100)
        62500.0
        >>> round(law.interval_for(nodes=100)), round(law.goodput(nodes=100), 4)
        (1917, 0.9675)
    """

    mtbf: float
    devices: int = 1
    common_mtbf: float = inf
    shape: float = 1.0
    detection: float = 0.0
    restart: float = 0.0
    checkpoint: float = 0.0
    interval: float | None = None
    spares: int = 0
    repair: float = 0.0
    elastic: str = "wait"
    least: int = 1

    def __post_init__(self) -> None:
        for name in ("mtbf", "common_mtbf", "repair"):
            if getattr(self, name) != inf:
                above = -inf if name == "repair" else 0.0
                checks.number(name, getattr(self, name), least=0, above=above, of="Failures")
        for name in ("detection", "restart", "checkpoint"):
            checks.number(name, getattr(self, name), least=0, of="Failures")
        for name in ("shape", "interval"):
            if getattr(self, name) is not None:
                checks.number(name, getattr(self, name), above=0, of="Failures")
        for name, least in (("devices", 1), ("spares", 0), ("least", 1)):
            checks.whole(name, getattr(self, name), least=least, of="Failures")
        if self.elastic not in ELASTIC:
            raise ValueError(f"elastic is one of {', '.join(map(repr, ELASTIC))}; got elastic={self.elastic!r}")

    def rate(self, nodes: int) -> float:
        """Crashes per second of a job on so many nodes: n·devices/mtbf + 1/common_mtbf."""
        return nodes * self.devices / self.mtbf + 1 / self.common_mtbf

    def system_mtbf(self, nodes: int) -> float:
        """Mean time between crashes of a job on so many nodes [s]; inf where nothing crashes."""
        rate = self.rate(checks.whole("nodes", nodes, least=1))
        return 1 / rate if rate else inf

    def interval_for(self, nodes: int) -> float:
        """The work between two checkpoints [s]: ``interval``, or the best one; inf where nothing crashes."""
        mtbf = self.system_mtbf(nodes)
        if self.interval is not None or mtbf == inf:
            return self.interval or inf
        return checkpointing.best_interval(mtbf, self.checkpoint)

    def goodput(self, nodes: int) -> float:
        """The closed form for this law: crashes without memory, and always a node to take a crashed one's place.

        Where crashes never come only checkpoints cost. Raises ValueError where they have memory: ``shape`` is not 1.
        """
        if self.shape != 1:
            raise ValueError(f"goodput has a closed form for shape=1; got shape={self.shape}: use simulate_training")
        return checkpointing.goodput(
            self.system_mtbf(nodes), self.checkpoint, self.restart, self.interval, self.detection
        )

    def draw(self, random: Random) -> float:
        """What a job endures until its next crash, in mean times between crashes: Weibull, with mean 1."""
        return random.weibullvariate(1 / gamma(1 + 1 / self.shape), self.shape)
