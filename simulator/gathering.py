"""Collectives under the virtual clock: they start when the last member arrives and end for all at once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .cluster import Link
from .collectives import critical_bytes, gathered_bytes, rounds, sent_bytes
from .program import AllGather, AllToAll, Collective
from .rank import Rank
from .threads import BLOCKED, Decoded, State, Thread
from .values import Inner, InnerGrad, Named, whole

if TYPE_CHECKING:
    from .virtual import Machine


class Meeting:
    """One collective: who has arrived, and when the last did."""

    __slots__ = ("arrivals", "latest", "size", "sizes")

    def __init__(self, size: float) -> None:
        self.arrivals: list[tuple[Thread, Collective, Decoded, float]] = []
        self.latest = 0.0
        self.size = size
        self.sizes: dict[int, float] = {}


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
        size = decoded.size if decoded.size >= 0 else self._size(thread.state, instruction)
        meeting = communicator.open.get(number)
        if meeting is None:
            meeting = communicator.open[number] = Meeting(size)
        elif meeting.arrivals[0][2] is not decoded or meeting.size != size:
            self._check(meeting, thread, instruction, size)
        if _uneven(instruction):
            meeting.sizes[rank] = size
        clock = thread.clock
        meeting.arrivals.append((thread, instruction, decoded, clock))
        if clock > meeting.latest:
            meeting.latest = clock
        if len(meeting.arrivals) == len(communicator.members):
            del communicator.open[number]
            self._begin(communicator, meeting)
        return BLOCKED

    def _size(self, state: State, instruction: Collective) -> float:
        """The bytes of a value whose size may change; of an AllToAll, those that leave this rank."""
        if not isinstance(instruction, AllToAll):
            return state.me.bytes(instruction.value)
        position, of = state.me.at(instruction.over), state.me.size(instruction.over)
        if state.tensors is None:
            return state.me.bytes(instruction.value) * (of - 1) / of * state.me.imbalance(instruction.value)
        counts, rows = state.tensors.read(instruction.counts).tolist(), state.tensors.read(instruction.value)
        counts[position] = 0
        return float(sum(counts) * rows[:1].nbytes if len(rows) else 0)

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
        if mine == theirs and (size == meeting.size or _uneven(mine)):
            return
        thread.current = mine
        raise self.machine.ending.error(
            f"ranks of one axis call the same collectives in the same order; rank {thread.state.me.rank} calls {mine}"
            f" of {size:g} bytes where rank {other.state.me.rank} calls {theirs} of {meeting.size:g} bytes",
            self.machine.ending.marks((other.state, thread.state)),
        )

    def _begin(self, communicator: Communicator, meeting: Meeting) -> None:
        instruction = meeting.arrivals[0][1]
        machine, n = self.machine, len(communicator.members)
        size = max(self._sent(communicator, meeting)) if meeting.sizes else _critical(instruction, n, meeting.size)
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
        extend = machine.spans.data.extend
        sent = self._sent(communicator, meeting)
        if meeting.arrivals[0][0].state.tensors is not None:
            self._exchange(communicator, meeting)
        position = {member: index for index, member in enumerate(communicator.members)}
        for thread, _, mine, start in meeting.arrivals:
            me = thread.state.me
            extend((me.rank, thread.index, mine.label, thread.step, start, end, sent[position[me.rank]]))
            thread.clock = end
            machine.resume(thread)

    def _sent(self, communicator: Communicator, meeting: Meeting) -> list[float]:
        """What each member sends, in the order of their positions."""
        instruction, n = meeting.arrivals[0][1], len(communicator.members)
        if n == 1:
            return [0.0]
        if not meeting.sizes:
            size = meeting.size * n if _gives_all(instruction) else meeting.size
            return [sent_bytes(instruction, n, size, position) for position in range(n)]
        sizes = [meeting.sizes[member] for member in communicator.members]
        if isinstance(instruction, AllToAll):
            return sizes
        return [gathered_bytes(sizes, position) for position in range(n)]

    def _exchange(self, communicator: Communicator, meeting: Meeting) -> None:
        from .combining import combine

        by_rank = {thread.state.me.rank: thread.state.tensors for thread, *_ in meeting.arrivals}
        combine(meeting.arrivals[0][1], [by_rank[member] for member in communicator.members])  # type: ignore[misc]


def size_of(me: Rank, instruction: Collective) -> float:
    """The bytes of a collective's value; -1 where they may change, as those of a named buffer."""
    changing = isinstance(whole(instruction.value), (Named, Inner, InnerGrad)) or _uneven(instruction)
    return -1.0 if changing else me.bytes(instruction.value)


def _uneven(instruction: Collective) -> bool:
    """Whether members may bring values of different sizes."""
    return isinstance(instruction, AllToAll) or (isinstance(instruction, AllGather) and instruction.ragged)


def _gives_all(instruction: Collective) -> bool:
    """Whether each member gives a value of its own, so that all together is as many times as large."""
    return isinstance(instruction, AllGather) and instruction.into is not None


def _critical(instruction: Collective, n: int, size: float) -> float:
    return critical_bytes(type(instruction), n, size * n if _gives_all(instruction) else size)
