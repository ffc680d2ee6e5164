"""One collective, message by message, under the virtual clock.

A rank sends what it has received as soon as its last message in the same direction has left; a message that comes
before its receiver waits for it. So a late member delays only what depends on it, and each goes on when it has sent
and received everything. Messages share links with all else that moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from .program import Broadcast
from .rounds import Progress, Rounds
from .threads import Thread

if TYPE_CHECKING:
    from .meetings import Communicator, Meeting
    from .messages import Laid, Messages


class Play:
    """How many messages of every lane have begun, have left and have arrived, and what every member still waits for.

    ``size``: bytes of the value on its way, or those that each rank sends; ``delay`` [s]: before the first message.
    """

    def __init__(
        self,
        messages: Messages,
        communicator: Communicator,
        meeting: Meeting,
        laid: Laid,
        size: float | Mapping[int, float],
        delay: float,
    ):
        self.machine, self.messages, self.communicator, self.meeting = messages.machine, messages, communicator, meeting
        self.laid, self.size, self.delay, self.members = laid, size, delay, communicator.members
        self.begun, self.left, self.got = ([0] * len(laid.lanes) for _ in range(3))
        self.open: dict[int, int] = {}
        self.arrivals: dict[int, tuple[Thread, int, float]] = {}
        self.starts: dict[int, float] = {}
        self.ready: set[int] = set()
        self.sent: Mapping[int, float] | None = None
        self.rounds: Rounds | None = None
        self.snapshot: Any = None
        self._count()

    def _count(self) -> None:
        """What every member still has to send and to receive."""
        self.open = dict.fromkeys(self.members, 0)
        for number, lane in enumerate(self.laid.lanes):
            self.open[lane.source] += lane.count - self.left[number]
            self.open[lane.target] += lane.count - self.got[number]

    # ------------------------------------------------------------ members come

    def expect(self, thread: Thread, label: int, clock: float, time: float) -> None:
        """A member came by its own clock, and takes part from a time on, after what a collective takes to begin."""
        rank, now = thread.state.me.rank, self.machine.env.now
        self.arrivals[rank] = thread, label, clock
        self.starts[rank] = max(now, time + self.delay)
        self._later(self.starts[rank] - now, partial(self._ready, rank))

    def _ready(self, rank: int) -> None:
        if self.rounds is None and not self.ready and len(self.starts) == len(self.members):
            self._in_rounds()
        if self.rounds is None:
            self.ready.add(rank)
            self._try(self.laid.starting.get(rank, ()))
            self._check(rank)

    # ------------------------------------------------------------ messages go

    def _try(self, lanes: Iterable[int]) -> None:
        """Send what can be sent now."""
        for number in lanes:
            if self._may(number):
                self.begun[number] += 1
                self._send(number, self._bytes(number))

    def _may(self, number: int) -> bool:
        lane, k, got = self.laid.lanes[number], self.begun[number], self.got
        if k > self.left[number] or k == lane.count or lane.source not in self.ready:
            return False
        if lane.behind is not None and self.left[lane.behind] <= k:
            return False
        known = self.laid.lanes
        return all(got[needed] > min(k - ahead, known[needed].count - 1) for needed, ahead in lane.needs)

    def _bytes(self, number: int) -> float:
        lane = self.laid.lanes[number]
        return lane.share * (self.size[lane.source] if isinstance(self.size, Mapping) else self.size)

    def _send(self, number: int, size: float) -> None:
        network, drained = self.machine.network, self.machine.drained
        network.start(self.laid.paths[number], size, drained(partial(self._left, number)))

    def _left(self, number: int) -> None:
        self.left[number] += 1
        if latency := self.laid.latencies[number]:
            self._later(latency, partial(self._arrived, number))
        else:
            self._arrived(number)
        self._try((number, *self.laid.following[number]))
        self._done(self.laid.lanes[number].source)

    def _arrived(self, number: int) -> None:
        self.got[number] += 1
        self._try(self.laid.waiting[number])
        self._done(self.laid.lanes[number].target)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        act = self.machine.drained(action)
        self.machine.env.timeout(max(0.0, seconds)).callbacks.append(lambda event: act())

    # ------------------------------------------------------------ members go

    def _done(self, rank: int) -> None:
        self.open[rank] -= 1
        self._check(rank)

    def _check(self, rank: int) -> None:
        if not self.open[rank] and rank in self.ready and rank in self.arrivals:
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

    # ------------------------------------------------------------ all messages of a round at once

    def _in_rounds(self) -> None:
        """Of rings that have their links to themselves, compute when all messages come, unless somebody disturbs."""
        laid, network = self.laid, self.machine.network
        if laid.turns is None or not network.free(laid.links):
            return
        lengths = [network.alone(path, self._bytes(number)) for number, path in enumerate(laid.paths)]
        starts = [self.starts[lane.source] for lane in laid.lanes]
        self.rounds = Rounds(laid.lanes[0].count, laid.turns, lengths, laid.latencies, starts)
        network.reserve(laid.links, self._disturbed)
        by_time: dict[float, list[int]] = {}
        for rank, end in self._ends(*self.rounds.ends()).items():
            by_time.setdefault(end, []).append(rank)
        last = max(by_time)
        for end, ranks in by_time.items():
            self._later(end - self.machine.env.now, partial(self._end, ranks, end == last))

    def _ends(self, left: Iterable[float], arrived: Iterable[float]) -> dict[int, float]:
        """When every member has sent and received all."""
        ends = dict(self.starts)
        for lane, gone, come in zip(self.laid.lanes, left, arrived):
            ends[lane.source] = max(ends[lane.source], gone)
            ends[lane.target] = max(ends[lane.target], come)
        return ends

    def _end(self, ranks: Iterable[int], last: bool) -> None:
        """Members go when it was computed, unless somebody came upon their links."""
        if self.rounds is None:
            return
        if last:
            self.machine.network.release(self.laid.links)
        for rank in ranks:
            self._leave(rank)

    def _disturbed(self) -> None:
        """Somebody else uses one of the links: from now on message by message, from where all of them are."""
        assert self.rounds is not None
        now, network = self.machine.env.now, self.machine.network
        progress, lengths, self.rounds = self.rounds.at(now), self.rounds.lengths, None
        network.release(self.laid.links)
        self._continue(progress)
        for number, end in progress.leaving:
            self._send(number, self._bytes(number) * (end - now) / lengths[number])
        for number, end in progress.arriving:
            self._later(end - now, partial(self._arrived, number))
        self._try(range(len(self.begun)))
        for rank in self.ready:
            self._check(rank)

    def _continue(self, progress: Progress) -> None:
        self.left, self.got, self.begun = progress.left, progress.arrived, list(progress.left)
        for number, _ in progress.leaving:
            self.begun[number] += 1
        self._count()
        self.ready = {rank for rank, start in self.starts.items() if start <= self.machine.env.now}
