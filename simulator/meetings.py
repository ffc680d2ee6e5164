"""Where collectives meet: the ranks of an axis on a stream, and one collective of theirs after another."""

from __future__ import annotations

from .links import Links
from .plain import Plain
from .plan import Plan
from .plans import Planner
from .playing import Play
from .program import AllToAll, Collective
from .threads import Decoded, Thread


class Meeting:
    """One collective: who has arrived, and when the last did; what it costs, where the wiring matters."""

    __slots__ = ("arrivals", "latest", "plan", "play", "size", "sizes")

    def __init__(self, size: float) -> None:
        self.arrivals: list[tuple[Thread, Collective, Decoded, float]] = []
        self.latest = 0.0
        self.size = size
        self.sizes: dict[int, float] = {}
        self.plan: Plan | None = None
        self.play: Play | None = None


class Communicator:
    """The ranks along one axis, on one stream: their collectives happen in the order in which each issues them.

    ``leaders`` are the members that are simulated, or the ranks that are simulated in their place. ``plain`` says what
    collectives are where there is no planner.
    """

    def __init__(self, links: Links, plain: Plain, planner: Planner | None = None, pairs: Planner | None = None):
        self.links, self.plain, self.planner, self.pairs = links, plain, planner, pairs
        self.members, self.leaders = links.members, links.leaders
        self.counts = dict.fromkeys(self.leaders, 0)
        self.open: dict[int, Meeting] = {}

    def planner_of(self, kind: type[Collective]) -> Planner | None:
        """Who plans such a collective. Beyond one switch, an exchange of all with all loads other links than a ring."""
        return self.pairs if kind is AllToAll and self.planner is None else self.planner
