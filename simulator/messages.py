"""Collectives message by message, by the algorithm that they would have as one flow of bytes.

Where all members come at one time, over links that are alike, and nothing contends, both take as long; the messages of
a stage share out among them what a plan counts as its latency. They differ for these reasons:

- What goes along chains and trees goes in pieces: it takes longer by a piece for every further hop.
- Rings that pass fast links and slow ones keep the slow ones busy: latency hides behind their bytes, while one flow
  first waits for all latency, then moves all bytes. Several chains or trees over one link do as much for each other.
- A binomial tree of n ranks, n no power of two, need not go through all rounds one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import TYPE_CHECKING, Any

from .cluster import Cluster
from .collectives import critical_bytes
from .exchanges import plain_script
from .lanes import Lane, Script
from .network import Path
from .plans import Plan, Planner
from .playing import Play
from .program import AllToAll, Broadcast, Collective
from .rounds import turning

if TYPE_CHECKING:
    from .meetings import Communicator, Meeting
    from .virtual import Machine

PIECES = 16
"""A piece that goes along a chain or a tree is so much less of the value, for each hop, unless below LEAST [B]."""
LEAST = 512


@dataclass(frozen=True, eq=False)
class Laid:
    """A script on a cluster: for every lane its links and the latency [s] of its messages."""

    script: Script
    paths: list[Path]
    latencies: list[float]

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """Those of the script."""
        return self.script.lanes

    @cached_property
    def waiting(self) -> list[list[int]]:
        """For each lane those that wait for what arrives on it."""
        return self._found((needed, number) for number, lane in enumerate(self.lanes) for needed, _ in lane.needs)

    @cached_property
    def following(self) -> list[list[int]]:
        """For each lane those that wait until a message of it has left."""
        lanes = enumerate(self.lanes)
        return self._found((lane.behind, number) for number, lane in lanes if lane.behind is not None)

    def _found(self, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in self.lanes]
        for lane, number in pairs:
            found[lane].append(number)
        return found

    @cached_property
    def starting(self) -> dict[int, list[int]]:
        """For each rank the lanes on which it sends."""
        found: dict[int, list[int]] = {}
        for number, lane in enumerate(self.lanes):
            found.setdefault(lane.source, []).append(number)
        return found

    @cached_property
    def links(self) -> list[Any]:
        """Of all lanes."""
        return [link for path in self.paths for link in path]

    @cached_property
    def turns(self) -> tuple[int, ...] | None:
        """Of rings in which no two lanes share a link, the lane before each; None of all else."""
        return turning(self.lanes) if len(set(self.links)) == len(self.links) else None


class Messages:
    """Plays all collectives of a simulation. ``sent`` and ``exchange``: of a meeting, as for one flow."""

    def __init__(
        self,
        machine: Machine,
        sent: Callable[[Communicator, Meeting], Callable[[int], float]],
        exchange: Callable[[Communicator, Meeting], None],
    ):
        self.machine, self.sent, self.exchange = machine, sent, exchange
        self.known: dict[object, Laid] = {}

    def join(self, communicator: Communicator, meeting: Meeting, value: float) -> None:
        """A member has arrived, the last of ``meeting.arrivals``; ``value``: bytes of what its plan is for.

        Where nothing is sent, as in a barrier, it stays with one flow of nothing.
        """
        if not value:
            return
        if meeting.play is None:
            meeting.play = self._play(communicator, meeting, value, value)
        thread, _, decoded, clock = meeting.arrivals[-1]
        meeting.play.expect(thread, decoded.label, clock, clock)

    def begin(self, communicator: Communicator, meeting: Meeting, value: float) -> None:
        """All members have arrived, and know from each other what they give."""
        instruction = meeting.arrivals[0][1]
        sizes = meeting.sizes if isinstance(instruction, AllToAll) else sum(meeting.sizes.values())
        meeting.play = self._play(communicator, meeting, value, sizes)
        for thread, _, decoded, clock in meeting.arrivals:
            meeting.play.expect(thread, decoded.label, clock, meeting.latest)

    def _play(
        self, communicator: Communicator, meeting: Meeting, value: float, sizes: float | Mapping[int, float]
    ) -> Play:
        """``value`` chooses the plan; ``sizes``: of what moves."""
        instruction = meeting.arrivals[0][1]
        kind, root = type(instruction), instruction.root if isinstance(instruction, Broadcast) else 0
        planner = communicator.planner_of(kind)
        if planner is None:
            laid = self._plain(communicator.members, kind, root)
            critical = value if meeting.sizes else critical_bytes(kind, len(communicator.members), value)
            return Play(self, communicator, meeting, laid, sizes, self._delay(kind, communicator, critical))
        plan = meeting.plan = planner.best(kind, value, root)
        laid = self._planned(planner, kind, root, plan, value / plan.fraction)
        delay = self._delay(kind, communicator, value / plan.fraction) + plan.base
        wire: float | Mapping[int, float]
        if isinstance(sizes, Mapping):
            wire = {rank: size / plan.fraction for rank, size in sizes.items()}
        else:
            wire = sizes / plan.fraction
        return Play(self, communicator, meeting, laid, wire, delay)

    def _delay(self, kind: type[Collective], communicator: Communicator, size: float) -> float:
        """What the software takes before the first message, however late a member is."""
        overheads = self.machine.cluster.overheads
        return overheads.before(kind, len(communicator.members), size) + self.machine.collective_delay()

    def _plain(self, members: Sequence[int], kind: type[Collective], root: int) -> Laid:
        key, cluster = (tuple(members), kind, root), self.machine.cluster
        if key not in self.known:
            script = plain_script(kind, members, root)
            latencies = [cluster.latency(lane.source, lane.target) for lane in script.lanes]
            self.known[key] = Laid(script, _paths(cluster, script.lanes), latencies)
        return self.known[key]

    def _planned(self, planner: Planner, kind: type[Collective], root: int, plan: Plan, size: float) -> Laid:
        pieces = 1
        if kind is Broadcast or plan.algorithm == "tree":
            whole = planner.script(plan, kind, root, 1)
            largest = max(lane.share for lane in whole.lanes)
            pieces = ceil(min(PIECES * whole.depths[0] * largest, largest * size / LEAST))
        key = tuple(planner.members), kind, root, plan.name, pieces
        if key not in self.known:
            script = planner.script(plan, kind, root, pieces)
            waits = [wait - (0.0 if stage else plan.base) for stage, (wait, _) in enumerate(plan.stages)]
            latencies = [waits[lane.stage] / script.depths[lane.stage] for lane in script.lanes]
            self.known[key] = Laid(script, _paths(self.machine.cluster, script.lanes), latencies)
        return self.known[key]


def _paths(cluster: Cluster, lanes: Iterable[Lane]) -> list[Path]:
    """The links of every lane, each carrying what the lane does."""
    known: dict[tuple[int, int], Path] = {}
    return [
        known.setdefault((lane.source, lane.target), dict.fromkeys(cluster.route(lane.source, lane.target), 1.0))
        for lane in lanes
    ]
