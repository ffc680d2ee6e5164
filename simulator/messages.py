"""Collectives message by message, by the algorithm that they would have as one flow of bytes.

Where all members come at one time and nothing else contends, both take as long. A rank's messages on one lane follow
one another, latency included, as textbooks count them; only the pieces of a message along a chain or a tree follow at
once, and a flow waits until they have filled it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .collectives import critical_bytes
from .laying import Bytes, Laid
from .playing import Play
from .program import AllToAll, Broadcast, Collective

if TYPE_CHECKING:
    from .meetings import Communicator, Meeting
    from .virtual import Machine


class Messages:
    """Plays all collectives of a simulation. ``sent`` and ``exchange``: of a meeting, as for one flow."""

    def __init__(
        self,
        machine: Machine,
        sent: Callable[[Communicator, Meeting], Callable[[int], float]],
        exchange: Callable[[Communicator, Meeting], None],
    ):
        self.machine, self.sent, self.exchange = machine, sent, exchange

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
        sizes = meeting.sizes if isinstance(meeting.arrivals[0][1], AllToAll) else value
        meeting.play = self._play(communicator, meeting, value, sizes)
        for thread, _, decoded, clock in meeting.arrivals:
            meeting.play.expect(thread, decoded.label, clock, meeting.latest)

    def _play(self, communicator: Communicator, meeting: Meeting, value: float, sizes: Bytes) -> Play:
        """``value`` chooses the plan; ``sizes``: of what moves."""
        laid, delay, fraction = self._laid(communicator, meeting, value)
        wire: Bytes
        if isinstance(sizes, Mapping):
            wire = {rank: size / fraction for rank, size in sizes.items()}
        else:
            wire = sizes / fraction
        return Play(self, communicator, meeting, laid, wire, delay)

    def _laid(self, communicator: Communicator, meeting: Meeting, value: float) -> tuple[Laid, float, float]:
        """The messages; what the software takes before the first of them [s]; which part of their bytes is data."""
        instruction, n = meeting.arrivals[0][1], len(communicator.members)
        kind, root = type(instruction), instruction.root if isinstance(instruction, Broadcast) else 0
        planner = communicator.planner_of(kind)
        if planner is None:
            passing = value if meeting.sizes else critical_bytes(kind, n, value)
            return communicator.plain.messages(kind, root), self._delay(meeting, kind, n, passing), 1.0
        plan = meeting.plan = planner.best(kind, value, root)
        wire = value / plan.fraction
        return plan.lay(wire), self._delay(meeting, kind, n, wire) + plan.base, plan.fraction

    def _delay(self, meeting: Meeting, kind: type[Collective], n: int, size: float) -> float:
        """What the software takes, however late a member is."""
        overheads, stream = self.machine.cluster.overheads, meeting.arrivals[0][0].stream
        return overheads.before(kind, n, size) + overheads.on(stream) + self.machine.delays.collective()
