"""A Run: what was observed on either clock. It stores observations; every number is derived in ``metrics``."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from . import metrics, runfile, trace
from .facts import Facts
from .metrics import Forecast, LossRow
from .metrics.spending import Price
from .spans import Sample, Span, Spans
from .values import bounds

if TYPE_CHECKING:
    import numpy as np

    from .memory import Text

__all__ = ["Facts", "Forecast", "LossRow", "Run", "Sample", "Span", "Spans"]

CLOCKS = ("virtual", "wall")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Run:
    """What was observed while a strategy ran.

    - ``clock``: "virtual" or "wall"; ``clock_error``: how far the ranks' clocks may disagree [s].
    - ``strategy``, ``workload``, ``cluster``: what ran, on what, where, as text. ``seed``: what chance began with.
    - ``ranks``: number of processes; ``workers``: those that hold a share of the data (servers do not).
    - ``steps``: updates per worker; ``batch``: samples in a global batch; ``slices``: how many of these each worker
      takes, in the order of ``workers`` (empty: as even shares as can be).
    - ``asynchronous``: whether workers go on without each other.
    - ``spans``: what ran when; ``samples``: the numbers noted.
    - ``outcomes``: per rank, what each receive-from-any and each Until gave, in order; enough to replay the run.
    - ``parameters``: name to array at the end; empty where only time was simulated.
    - ``buffers``: the same of what blocks keep without learning it, such as the running means of a BatchNorm; where
      several ranks have a block, those of the first.
    - ``versions``, ``notes``: of software, and what else to know (say, that the machine was busy), as texts.
    - ``facts``: FLOP of the model, and what the devices promise, cost and draw.
    - ``alike``: of many ranks, those that behave alike are simulated once: per rank, the one whose spans are its too
      (empty: every rank has its own). ``sent``: then, the bytes that every rank sent.
    - ``text``: of what program it is, for numbers that follow from that; not in files.

    Runs are equal when their observations are: everything except ``versions``, ``notes``, ``facts`` and ``text``.

    Raises ValueError for an unknown clock or workers outside the ranks.

    >>> from simulator import Model, Single, cluster, simulate
    >>> simulate(Single(), Model.of_times(blocks=2), cluster("ideal", ranks=1), steps=3)
    <Run of Single() on the virtual clock: 1 rank, 3 steps in 18 s>
    """

    clock: str
    strategy: str
    workload: str
    cluster: str
    ranks: int
    workers: tuple[int, ...]
    steps: int
    seed: int
    batch: int
    slices: tuple[int, ...] = ()
    asynchronous: bool = False
    spans: Spans = field(default_factory=Spans)
    samples: list[Sample] = field(default_factory=list)
    outcomes: tuple[list[int], ...] = ()
    parameters: dict[str, np.ndarray] = field(default_factory=dict)
    buffers: dict[str, np.ndarray] = field(default_factory=dict)
    clock_error: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    alike: tuple[int, ...] = ()
    sent: tuple[float, ...] = ()
    text: Text | None = None

    def __post_init__(self) -> None:
        if self.clock not in CLOCKS:
            raise ValueError(f"a clock is one of {', '.join(map(repr, CLOCKS))}; got clock={self.clock!r}")
        if not all(0 <= worker < self.ranks for worker in self.workers):
            raise ValueError(f"workers are ranks from 0 to {self.ranks - 1}; got workers={self.workers}")

    # ------------------------------------------------------------ numbers

    @cached_property
    def stands_for(self) -> dict[int, int]:
        """How many ranks each one that has spans stands for: itself alone, unless alike ones were simulated once."""
        return dict(sorted(Counter(self.alike or range(self.ranks)).items()))

    @property
    def shares(self) -> tuple[int, ...]:
        """Samples of a batch that each worker takes, in the order of ``workers``."""
        count = len(self.workers)
        return self.slices or tuple(b - a for a, b in (bounds(self.batch, at, count) for at in range(count)))

    @property
    def makespan(self) -> float:
        """Seconds from the first start to the last end."""
        return metrics.makespan(self)

    @property
    def step_times(self) -> list[float]:
        """Seconds per step, from when the workers ended the one before."""
        return metrics.step_times(self)

    @property
    def throughput(self) -> float:
        """Samples per second."""
        return metrics.throughput(self)

    @property
    def losses(self) -> list[float] | list[LossRow]:
        """The loss of every step; for asynchronous runs ``LossRow(time, worker, update, loss)`` in order of time."""
        return metrics.losses(self)

    @property
    def staleness(self) -> list[int]:
        """Updates that each applied gradient came late, one per gradient and server, in order of time."""
        return metrics.staleness(self)

    @property
    def bytes_sent(self) -> list[float]:
        """Bytes that each rank itself sent."""
        return metrics.bytes_sent(self)

    @property
    def busy(self) -> list[float]:
        """Seconds that each rank computed."""
        return metrics.busy(self)

    @property
    def bubble(self) -> float:
        """Idle fraction of the workers' wall time."""
        return metrics.bubble(self)

    @property
    def exposed_communication(self) -> list[float]:
        """Seconds per worker in which it did not compute while something of its own was on its way."""
        return metrics.exposed_communication(self)

    @property
    def waiting(self) -> list[float]:
        """Seconds per worker in which it neither computed nor had anything on its way, as in a pipeline's bubble."""
        return metrics.waiting(self)

    @property
    def in_flight(self) -> list[float]:
        """Most microbatches that each rank held between forward and backward; with chunks, parts of one."""
        return metrics.in_flight(self)

    @property
    def peak_memory(self) -> list[float]:
        """Most bytes that each rank's program holds at once, as ``simulator.memory`` counts them."""
        return metrics.peak_memory(self)

    @property
    def instructions(self) -> dict[tuple[int, str], list[str]]:
        """Which instructions each (rank, stream) ran, in order."""
        return metrics.instructions(self)

    @property
    def mfu(self) -> float:
        """Model FLOPs utilization: the FLOP that the model needs, over what the workers' peaks allow in that time."""
        return metrics.mfu(self)

    @property
    def hfu(self) -> float:
        """Hardware FLOPs utilization: as ``mfu``, but what is computed again in backward passes counts too."""
        return metrics.hfu(self)

    @property
    def energy(self) -> float:
        """Energy that the devices draw [J]: idle power all the time, full power while they compute."""
        return metrics.energy(self)

    def cost(self, price: Price | None = None) -> float:
        """Money for the run [USD], at ``price`` per device and hour, for all or by name, or those of the catalogue."""
        return metrics.cost(self, price)

    def carbon(self, grid: float | str, pue: float = 1.0) -> float:
        """CO2 equivalents of the energy [kg]; ``grid``: g/kWh or a name, ``pue``: of the data centre, at least 1."""
        return metrics.carbon(self, grid, pue)

    def extrapolate(
        self,
        steps: int | None = None,
        samples: float | None = None,
        tokens: float | None = None,
        epochs: float | None = None,
        *,
        dataset: float | None = None,
        price: Price | None = None,
        goodput: float | None = None,
    ) -> Forecast:
        """Time, money and energy of a whole training like this run; see ``metrics.extrapolate``."""
        return metrics.extrapolate(
            self, steps, samples, tokens, epochs, dataset=dataset, price=price, goodput=goodput
        )

    def summary(self) -> dict[str, float]:
        """The main numbers of the run by name, in SI units."""
        return metrics.summary(self)

    # ------------------------------------------------------------ files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the run to exactly this path; what stood there stays until the new file is whole."""
        runfile.write(runfile.fields_of(replace(self, notes=self.notes | metrics.memory_note(self))), path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Run:
        """Read what ``save`` wrote. Nothing in the file is executed; RunFileError if it is not a run."""
        return runfile.read(path, cls)

    def to_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Write a trace that https://ui.perfetto.dev and chrome://tracing open."""
        trace.write(self, path)

    def digest(self) -> str:
        """SHA-256 of all observations, as 64 hexadecimal digits: the same for the same run in every process."""
        return runfile.digest(runfile.fields_of(self))

    def __eq__(self, other: object) -> bool:
        return self.digest() == other.digest() if isinstance(other, Run) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest())

    def __repr__(self) -> str:
        loss = metrics.final_loss(self)
        learned = "" if loss is None else f", loss {loss:.4g}"
        size = f"{_count(self.ranks, 'rank')}, {_count(self.steps, 'step')} in {metrics.readable(self.makespan)}"
        return f"<Run of {self.strategy} on the {self.clock} clock: {size}{learned}>"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
