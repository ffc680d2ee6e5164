"""One collective, message by message, under the virtual clock: its members come and go.

A late member delays only what depends on it, and each goes on when it has sent and received everything. While nobody
else uses the links, all times are computed; as soon as somebody does, every message is an event, and shares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from .carrying import Carrier
from .laying import Bytes, Laid, bytes_of, seconds_of
from .program import Broadcast
from .threads import Thread
from .timetable import Timetable

if TYPE_CHECKING:
    from .meetings import Communicator, Meeting
    from .messages import Messages


class Play:
    """Who has come, and who still waits. ``size``: of what moves; ``delay`` [s]: before the first message."""

    def __init__(
        self,
        messages: Messages,
        communicator: Communicator,
        meeting: Meeting,
        laid: Laid,
        size: Bytes,
        delay: float,
    ):
        self.machine, self.messages, self.communicator, self.meeting = messages.machine, messages, communicator, meeting
        self.laid, self.size, self.delay, self.members = laid, size, delay, communicator.members
        self.arrivals: dict[int, tuple[Thread, int, float]] = {}
        self.starts: dict[int, float] = {}
        self.reserved = False
        self.carrier: Carrier | None = None
        self.sent: Mapping[int, float] | None = None
        self.snapshot: Any = None

    # ------------------------------------------------------------ members come

    def expect(self, thread: Thread, label: int, clock: float, time: float) -> None:
        """A member came by its own clock, and takes part from a time on, after what a collective takes to begin."""
        rank, now = thread.state.me.rank, self.machine.env.now
        self.arrivals[rank] = thread, label, clock
        self.starts[rank] = max(now, time + self.delay)
        self._later(self.starts[rank] - now, partial(self._ready, rank))
        if self.reserved and self._complete:
            self._schedule()

    @property
    def _complete(self) -> bool:
        return len(self.starts) == len(self.members)

    def _ready(self, rank: int) -> None:
        if self.carrier is None and (self.reserved or self._computed()):
            return
        self._carried().begin(rank)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        act = self.machine.drained(action)
        self.machine.env.timeout(max(0.0, seconds)).callbacks.append(lambda event: act())

    def _carried(self) -> Carrier:
        """From now on every message is an event."""
        if self.carrier is None:
            sizes, machine = bytes_of(self.laid, self.size), self.machine
            self.carrier = Carrier(machine.network, self.laid, sizes, self._done, machine.drained)
        return self.carrier

    # ------------------------------------------------------------ all messages at once

    def _computed(self) -> bool:
        """Keep the links, if nobody uses them, so that times can be computed; whether that can be done.

        Of members who are to come only the times are missing, unless some may be done before them, or stages that pass
        the same links may meet.
        """
        if not self.machine.network.free(self.laid.links):
            return False
        if self._complete:
            if not self._table().fits:
                return False
        elif not self.laid.apart or isinstance(self.meeting.arrivals[0][1], Broadcast):
            return False
        self.machine.network.reserve(self.laid.links, self._disturbed)
        self.reserved = True
        if self._complete:
            self._schedule()
        return True

    def _table(self) -> Timetable:
        absent = dict.fromkeys(self.members, float("inf"))
        return Timetable(self.laid, seconds_of(self.laid, self.size), absent | self.starts)

    def _schedule(self) -> None:
        """Members go when it was computed, unless somebody comes upon their links."""
        by_time: dict[float, list[int]] = {}
        for rank, end in self._table().ends.items():
            by_time.setdefault(end, []).append(rank)
        last = max(by_time)
        for end, ranks in by_time.items():
            self._later(end - self.machine.env.now, partial(self._end, ranks, end == last))

    def _end(self, ranks: Iterable[int], last: bool) -> None:
        if not self.reserved:
            return
        if last:
            self._release()
        for rank in ranks:
            self._leave(rank)

    def _release(self) -> None:
        self.machine.network.release(self.laid.links)
        self.reserved = False

    def _disturbed(self) -> None:
        """Somebody else uses one of the links: from now on message by message, from where all of them are."""
        progress, now = self._table().at(self.machine.env.now), self.machine.env.now
        self._release()
        here = [rank for rank, start in self.starts.items() if start <= now]
        self._carried().go_on(progress, here, seconds_of(self.laid, self.size))

    # ------------------------------------------------------------ members go

    def _done(self, rank: int) -> None:
        if rank in self.arrivals:
            self._leave(rank)

    def _leave(self, rank: int) -> None:
        machine, (thread, label, clock) = self.machine, self.arrivals.pop(rank)
        now = thread.clock = machine.env.now
        if self.sent is None:
            sent = self.messages.sent(self.communicator, self.meeting)
            self.sent = {member: sent(position) for position, member in enumerate(self.members)}
        if thread.state.tensors is not None:
            self._combine(thread)
        machine.spans.data.extend((rank, thread.index, label, thread.step, clock, now, self.sent[rank]))
        machine.resume(thread)

    def _combine(self, thread: Thread) -> None:
        """The maths: for all at once when the first of them goes; of a broadcast for each, from what the root had."""
        instruction, tensors = self.meeting.arrivals[0][1], thread.state.tensors
        if not isinstance(instruction, Broadcast):
            if len(self.arrivals) == len(self.members) - 1:
                self.messages.exchange(self.communicator, self.meeting)
            return
        root = self.members[instruction.root]
        mine = thread.state.me.rank == root
        if self.snapshot is None:  # before the root goes on, and may change it
            source = (thread if mine else self.arrivals[root][0]).state.tensors
            self.snapshot = source.read(instruction.value).clone()  # type: ignore[union-attr]
        if not mine:
            tensors.write(instruction.value, self.snapshot.clone())  # type: ignore[union-attr]
