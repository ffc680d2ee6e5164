"""Collectives under the virtual clock: they start when the last member arrives and end for all at once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .cluster import Link
from .collectives import critical_bytes, rounds, sent_bytes
from .program import Collective
from .rank import Rank
from .threads import BLOCKED, Decoded, Thread
from .values import Named, whole

if TYPE_CHECKING:
    from .virtual import Machine


class Meeting:
    """One collective: who has arrived, and when the last did."""

    __slots__ = ("arrivals", "latest", "size")

    def __init__(self, size: float) -> None:
        self.arrivals: list[tuple[Thread, Collective, Decoded, float]] = []
        self.latest = 0.0
        self.size = size


class Communicator:
    """The ranks along one axis, on one stream: their collectives happen in the order in which each issues them."""

    def __init__(self, members: tuple[int, ...], path: Counter[Link], latency: float):
        self.members, self.path, self.latency = members, path, latency
        self.counts = dict.fromkeys(members, 0)
        self.open: dict[int, Meeting] = {}


class Gathering:
    """All communicators of a simulation."""

    def __init__(self, machine: Machine):
        self.machine = machine
        self.known: dict[tuple[str, str, int], Communicator] = {}

    def join(self, thread: Thread, instruction: Collective, decoded: Decoded) -> object:
        """A member arrives. The last one starts the collective."""
        rank = thread.state.me.rank
        communicator = self.known.get((instruction.over, thread.stream, rank))
        if communicator is None:
            communicator = self._communicator(thread, instruction.over)
        number = communicator.counts[rank]
        communicator.counts[rank] = number + 1
        size = decoded.size if decoded.size >= 0 else thread.state.me.bytes(instruction.value)
        meeting = communicator.open.get(number)
        if meeting is None:
            meeting = communicator.open[number] = Meeting(size)
        elif meeting.arrivals[0][2] is not decoded or meeting.size != size:
            self._check(meeting, thread, instruction, size)
        clock = thread.clock
        meeting.arrivals.append((thread, instruction, decoded, clock))
        if clock > meeting.latest:
            meeting.latest = clock
        if len(meeting.arrivals) == len(communicator.members):
            del communicator.open[number]
            self._begin(communicator, meeting)
        return BLOCKED

    def _communicator(self, thread: Thread, over: str) -> Communicator:
        members = thread.state.me.group(over)
        cluster = self.machine.cluster
        hops = list(zip(members, members[1:] + members[:1])) if len(members) > 1 else []
        path = Counter(link for hop in hops for link in cluster.route(*hop))
        latency = max((cluster.latency(*hop) for hop in hops), default=0.0)
        communicator = Communicator(members, path, latency)
        for member in members:
            self.known[over, thread.stream, member] = communicator
        return communicator

    def _check(self, meeting: Meeting, thread: Thread, mine: Collective, size: float) -> None:
        other, theirs, _, _ = meeting.arrivals[0]
        if mine == theirs and size == meeting.size:
            return
        thread.current = mine
        raise self.machine.error(
            f"ranks of one axis call the same collectives in the same order; rank {thread.state.me.rank} calls {mine}"
            f" of {size:g} bytes where rank {other.state.me.rank} calls {theirs} of {meeting.size:g} bytes",
            self.machine.marks((other.state, thread.state)),
        )

    def _begin(self, communicator: Communicator, meeting: Meeting) -> None:
        instruction = meeting.arrivals[0][1]
        machine, n = self.machine, len(communicator.members)
        size = critical_bytes(type(instruction), n, meeting.size)
        latency = rounds(type(instruction), n) * communicator.latency
        if n > 1:
            latency += machine.cluster.overheads.collective + machine.collective_delay()

        def done() -> None:
            self._end(communicator, meeting, machine.env.now)

        def move() -> None:
            machine.network.start(communicator.path, size, machine.drained(done))

        if size and n > 1:
            # Only what is on the network must agree with the simulation's time; the rest may run ahead.
            # Each hop of the ring carries its own share, so a flow moves it once over all hops.
            machine.at(meeting.latest + latency, move)
        else:
            self._end(communicator, meeting, meeting.latest + latency)

    def _end(self, communicator: Communicator, meeting: Meeting, end: float) -> None:
        machine = self.machine
        n, extend = len(communicator.members), machine.spans.data.extend
        instruction = meeting.arrivals[0][1]
        if meeting.arrivals[0][0].state.tensors is not None:
            self._exchange(communicator, meeting)
        sent = [sent_bytes(instruction, n, meeting.size, position) for position in range(n)] if n > 1 else [0.0]
        position = {member: index for index, member in enumerate(communicator.members)}
        for thread, _, mine, start in meeting.arrivals:
            me = thread.state.me
            extend((me.rank, thread.index, mine.label, thread.step, start, end, sent[position[me.rank]]))
            thread.clock = end
            machine.resume(thread)

    def _exchange(self, communicator: Communicator, meeting: Meeting) -> None:
        from .combining import combine

        by_rank = {thread.state.me.rank: thread.state.tensors for thread, *_ in meeting.arrivals}
        combine(meeting.arrivals[0][1], [by_rank[member] for member in communicator.members])  # type: ignore[misc]


def size_of(me: Rank, instruction: Collective) -> float:
    """The bytes of a collective's value; -1 where they may change, as those of a named buffer."""
    return -1.0 if isinstance(whole(instruction.value), Named) else me.bytes(instruction.value)
