"""What happened in a long training: a timeline, and the numbers that follow from it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import fsum, inf
from typing import TYPE_CHECKING, NamedTuple

from ..metrics import readable
from .law import Failures

if TYPE_CHECKING:
    import pandas as pd

MOMENTS = ("crash", "shrink", "grow")
SPELLS = ("work", "lost", "checkpoint", "detect", "restart", "wait")


class Event(NamedTuple):
    """A spell or a moment of the timeline, from ``start`` to ``end`` [s], on ``nodes`` nodes (at its end).

    Spells fill the time: "work" that was kept, "lost" work, "checkpoint" (whole or broken off), "detect", "restart",
    "wait". Moments have no length: "crash", "shrink", "grow". ``steps``: updates made in a spell of work.
    """

    kind: str
    start: float
    end: float
    nodes: int
    steps: float = 0.0


@dataclass(frozen=True)
class Training:
    """A long training on the virtual clock, extrapolated from the time of one step: see ``simulate_training``.

    ``seconds`` long, on ``nodes`` nodes if all are well, which make a step in ``step_time`` [s].
    """

    nodes: int
    seconds: float
    step_time: float
    failures: Failures
    seed: int
    timeline: tuple[Event, ...] = field(repr=False)

    def spent(self, kind: str) -> float:
        """Seconds spent on one kind of spell: "work", "lost", "checkpoint", "detect", "restart" or "wait"."""
        if kind not in SPELLS:
            raise ValueError(f"time is spent on {', '.join(SPELLS)}; got kind={kind!r}")
        return fsum(event.end - event.start for event in self.timeline if event.kind == kind)

    def count(self, kind: str) -> int:
        """How many spells or moments of one kind there were, such as "crash", "shrink" or "restart"."""
        if kind not in SPELLS + MOMENTS:
            raise ValueError(f"a timeline has {', '.join(SPELLS + MOMENTS)}; got kind={kind!r}")
        return Counter(event.kind for event in self.timeline)[kind]

    def __repr__(self) -> str:
        crashes = self.count("crash")
        return (
            f"<Training on {self.nodes} node{'' if self.nodes == 1 else 's'} for {self.seconds / 3600:,.4g} h:"
            f" {self.useful_steps:,} useful steps of {readable(self.step_time)},"
            f" {crashes:,} crash{'' if crashes == 1 else 'es'}, goodput {self.goodput:.1%}>"
        )

    @property
    def goodput(self) -> float:
        """Samples trained and kept, over those of as long a training on all nodes in which nothing ever fails."""
        rescales = self.failures.elastic == "rescale"
        kept = (e.steps * (e.nodes / self.nodes if rescales else 1) for e in self.timeline if e.kind == "work")
        return fsum(kept) * self.step_time / self.seconds

    @property
    def useful_steps(self) -> int:
        """Whole updates made and kept. With "rescale", those of a shrunken training see fewer samples."""
        return int(fsum(event.steps for event in self.timeline if event.kind == "work") + 1e-6)

    @property
    def lost_work(self) -> float:
        """Seconds of work that crashes undid, because no checkpoint held it yet."""
        return self.spent("lost")

    @property
    def crashes(self) -> int:
        """How often a crash stopped the training, restarts included."""
        return self.count("crash")

    @property
    def mtbf(self) -> float:
        """Seconds per crash, all time counted [s]; inf without crashes."""
        return self.seconds / self.crashes if self.crashes else inf

    def summary(self) -> dict[str, float]:
        """The main numbers by name: counts, goodput, and the share of time spent on each kind of spell."""
        shares = {kind: self.spent(kind) / self.seconds for kind in SPELLS}
        return {"goodput": self.goodput, "useful_steps": self.useful_steps, "crashes": self.crashes, **shares}

    def frame(self) -> pd.DataFrame:
        """The timeline as a table: kind, start [s], end [s], nodes, steps."""
        import pandas as pd

        return pd.DataFrame(list(self.timeline), columns=list(Event._fields))
