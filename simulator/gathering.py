"""Collectives under the virtual clock: they start when the last member arrives and end for all at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .cluster import Link
from .collectives import critical_bytes, gathered_bytes, rounds, sent_bytes
from .plans import Plan, Planner
from .program import AllGather, AllToAll, Broadcast, Collective, ReduceScatter
from .rank import Rank
from .threads import BLOCKED, Decoded, State, Thread
from .values import Inner, InnerGrad, Named, whole

if TYPE_CHECKING:
    from .virtual import Machine


class Meeting:
    """One collective: who has arrived, and when the last did; what it costs, where the wiring matters."""

    __slots__ = ("arrivals", "latest", "plan", "size", "sizes")

    def __init__(self, size: float) -> None:
        self.arrivals: list[tuple[Thread, Collective, Decoded, float]] = []
        self.latest = 0.0
        self.size = size
        self.sizes: dict[int, float] = {}
        self.plan: Plan | None = None


class Communicator:
    """The ranks along one axis, on one stream: their collectives happen in the order in which each issues them."""

    def __init__(
        self, members: tuple[int, ...], path: Counter[Link], latency: float, planner: Planner | None = None
    ):
        self.members, self.path, self.latency, self.planner = members, path, latency, planner
        self.counts = dict.fromkeys(members, 0)
        self.open: dict[int, Meeting] = {}


class Gathering:
    """All communicators of a simulation."""

    def __init__(self, machine: Machine):
        self.machine = machine
        self.known: dict[tuple[str, str, int], Communicator] = {}
        self.planners: dict[tuple[int, ...], Planner] = {}

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
        if isinstance(instruction, ReduceScatter) and instruction.into is not None and state.tensors is None:
            # Without tensors a value has the size that is left of it for a rank.
            return state.me.bytes(instruction.value) * state.me.size(instruction.over)
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
        planner = None if cluster.plain or len(members) == 1 else self.planners.get(members)
        if planner is None and not cluster.plain and len(members) > 1:
            planner = self.planners[members] = Planner(cluster, members)
        hops = list(zip(members, members[1:] + members[:1])) if len(members) > 1 and planner is None else []
        path = Counter(link for hop in hops for link in cluster.route(*hop))
        latency = max((cluster.latency(*hop) for hop in hops), default=0.0)
        communicator = Communicator(members, path, latency, planner)
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
        stages: tuple[tuple[float, Mapping[Link, float]], ...]
        stages = ((rounds(type(instruction), n) * communicator.latency, communicator.path),)
        if communicator.planner is not None:
            root = instruction.root if isinstance(instruction, Broadcast) else 0
            size = _given(instruction, n, size if meeting.sizes else meeting.size)
            plan = meeting.plan = communicator.planner.best(type(instruction), size, root)
            stages, size = plan.stages, size / plan.fraction
        start = meeting.latest
        if n > 1:
            start += machine.cluster.overheads.collective + machine.collective_delay()
        self._pass(communicator, meeting, stages, size, start)

    def _pass(
        self,
        communicator: Communicator,
        meeting: Meeting,
        stages: tuple[tuple[float, Mapping[Link, float]], ...],
        size: float,
        start: float,
    ) -> None:
        """Stage after stage: first the latency, then the bytes."""
        machine, (latency, path), later = self.machine, stages[0], stages[1:]

        def done() -> None:
            go_on(machine.env.now)

        def go_on(now: float) -> None:
            if later:
                self._pass(communicator, meeting, later, size, now)
            else:
                self._end(communicator, meeting, now)

        def move() -> None:
            machine.network.start(path, size, machine.drained(done))

        if size and path:
            # Only what is on the network must agree with the simulation's time; the rest may run ahead.
            # Each hop of the ring carries its own share, so a flow moves it once over all hops.
            machine.at(start + latency, move)
        else:
            go_on(start + latency)

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
        if meeting.plan is not None and not meeting.sizes:
            return [_given(instruction, n, meeting.size) * share for share in meeting.plan.sent]
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
    scattered = isinstance(instruction, ReduceScatter) and instruction.into is not None
    changing = isinstance(whole(instruction.value), (Named, Inner, InnerGrad)) or scattered or _uneven(instruction)
    return -1.0 if changing else me.bytes(instruction.value)


def _uneven(instruction: Collective) -> bool:
    """Whether members may bring values of different sizes."""
    return isinstance(instruction, AllToAll) or (isinstance(instruction, AllGather) and instruction.ragged)


def _gives_all(instruction: Collective) -> bool:
    """Whether each member gives a value of its own, so that all together is as many times as large."""
    return isinstance(instruction, AllGather) and instruction.into is not None


def _critical(instruction: Collective, n: int, size: float) -> float:
    return critical_bytes(type(instruction), n, size * n if _gives_all(instruction) else size)


def _given(instruction: Collective, n: int, size: float) -> float:
    """The bytes of what a plan is for: of the whole value; of an all-to-all, those that a rank sends."""
    if isinstance(instruction, AllGather) and instruction.ragged:
        return size * n / (n - 1)
    return size * n if _gives_all(instruction) else size
