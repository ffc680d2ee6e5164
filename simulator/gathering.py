"""Collectives under the virtual clock: they start when the last member arrives and end for all at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from .clusters.star import Star
from .collectives import gathered_bytes, sent_bytes
from .links import Links, Stages
from .meetings import Communicator, Meeting
from .messages import Messages
from .payloads import critical, given, gives_all, uneven
from .plain import Plain
from .plans import Planner
from .program import AllToAll, Broadcast, Collective, ReduceScatter
from .spans import BYTES, RANK, WIDTH, Spans
from .threads import BLOCKED, Decoded, State, Thread

if TYPE_CHECKING:
    from .virtual import Machine


class Gathering:
    """All communicators of a simulation."""

    def __init__(self, machine: Machine):
        self.machine = machine
        self.known: dict[tuple[str, str, int], Communicator] = {}
        self.alike: dict[Hashable, tuple[int, ...]] = {}
        self.planners: dict[tuple[int, ...], Planner] = {}
        self.plain: dict[tuple[int, ...], Plain] = {}
        self.more: dict[tuple[int, str, int], float] = {}
        self.messages = Messages(machine, self._sent, self._exchange) if machine.detail == "messages" else None

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
        if uneven(instruction):
            meeting.sizes[rank] = size
        clock = thread.clock
        meeting.arrivals.append((thread, instruction, decoded, clock))
        if clock > meeting.latest:
            meeting.latest = clock
        if self.messages is not None and len(communicator.members) > 1 and not meeting.sizes:
            self.messages.join(communicator, meeting, given(instruction, len(communicator.members), meeting.size))
        if len(meeting.arrivals) == len(communicator.leaders):
            del communicator.open[number]
            if meeting.play is None:
                self._begin(communicator, meeting)
        return BLOCKED

    def _size(self, state: State, instruction: Collective) -> float:
        """The bytes of a value whose size may change; of an AllToAll, those that leave this rank."""
        if isinstance(instruction, ReduceScatter) and instruction.into is not None and state.tensors is None:
            # Without tensors a value has the size that is left of it for a rank.
            return state.me.bytes(instruction.value) * state.me.size(instruction.over)
        if not isinstance(instruction, AllToAll):
            if state.tensors is not None:  # they know how wide the numbers of a buffer are, of which this may be a part
                return float(state.tensors.read(instruction.value).nbytes)
            return state.me.bytes(instruction.value)
        position, of = state.me.at(instruction.over), state.me.size(instruction.over)
        if state.tensors is None:
            return state.me.bytes(instruction.value) * (of - 1) / of * state.me.imbalance(instruction.value)
        counts, rows = state.tensors.read(instruction.counts).tolist(), state.tensors.read(instruction.value)
        counts[position] = 0
        return float(sum(counts) * rows[:1].nbytes if len(rows) else 0)

    def _communicator(self, thread: Thread, over: str) -> Communicator:
        members = thread.state.me.group(over)
        cluster, folding = self.machine.cluster, self.machine.folding
        folding.ensure_foreseen(thread.state.me, over)
        planned, like = None, self._like(members)
        if len(members) > 1 and not (cluster.plain and isinstance(cluster.wiring, Star)):
            planned = self.planners.setdefault(like, Planner(cluster, like))
        planner = None if cluster.plain else planned
        places = [thread.state.me.position(folding.of[member], over) for member in members]
        plain = self.plain.setdefault(like, Plain(cluster, like))
        communicator = Communicator(Links(cluster, folding, over, members, places, like), plain, planner, planned)
        for leader in communicator.leaders:
            self.known[over, thread.stream, leader] = communicator
        return communicator

    def _like(self, members: tuple[int, ...]) -> tuple[int, ...]:
        """Where ranks are folded, the first group on links of the same kinds: what it plans holds for this one too."""
        wiring = self.machine.cluster.wiring
        outline = wiring.outline(members) if self.machine.folding.folds else None
        if outline is None:
            return members
        return self.alike.setdefault((outline, *map(wiring.kind, members)), members)

    def _check(self, meeting: Meeting, thread: Thread, mine: Collective, size: float) -> None:
        other, theirs, _, _ = meeting.arrivals[0]
        if mine == theirs and (size == meeting.size or uneven(mine)):
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
        if isinstance(instruction, Broadcast):
            machine.folding.ensure_foreseen(meeting.arrivals[0][0].state.me, instruction.over, place=True)
        size = critical(instruction, n, meeting.size)
        if meeting.sizes:
            size = max(map(self._sent(communicator, meeting), range(n)))
        if self.messages is not None and n > 1 and meeting.sizes and size:
            self.messages.begin(communicator, meeting, given(instruction, n, size))
            return
        stages, passing, filling = self._stages(communicator, meeting, size)
        start = meeting.latest
        if n > 1:
            overheads, stream = machine.cluster.overheads, meeting.arrivals[0][0].stream
            before = overheads.before(type(instruction), n, size if meeting.plan is None else passing)
            start += before + overheads.on(stream) + machine.delays.collective()
        self._pass(communicator, meeting, stages, passing, start + filling)

    def _stages(self, communicator: Communicator, meeting: Meeting, size: float) -> tuple[Stages, float, float]:
        """What flows one after another, and how much of it [B]; how much longer it takes until it does [s].

        ``size``: of what passes the links of one rank.
        """
        instruction, n, links = meeting.arrivals[0][1], len(communicator.members), communicator.links
        kind, root = type(instruction), instruction.root if isinstance(instruction, Broadcast) else 0
        planner = communicator.planner_of(kind)
        if planner is None:
            passing, plain = meeting.size if kind is Broadcast else size, communicator.plain
            path = links.simulated(plain.path(kind, root))
            return ((plain.wait(kind, root, passing), path),), passing, 0.0
        value = given(instruction, n, size if meeting.sizes else meeting.size)
        plan = meeting.plan = planner.best(kind, value, root)
        stages, passing, filling = links.stages(plan), value / plan.fraction, plan.filling(value)
        if stages[0][0] + filling < 0:  # ranks are so far apart that stages are hardly one after another
            wait = max(0.0, plan.seconds(value) - self.machine.network.alone(plan.together, passing))
            return ((wait, links.simulated(plan.together)),), passing, 0.0
        return stages, passing, filling

    def _pass(
        self,
        communicator: Communicator,
        meeting: Meeting,
        stages: Stages,
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
            machine.network.start(path, size, machine.drained(done), exclusive=communicator.links.rough.get(id(path)))

        if size and path:
            # Only what is on the network must agree with the simulation's time; the rest may run ahead.
            # Each hop of the ring carries its own share, so a flow moves it once over all hops.
            machine.at(start + latency, move)
        else:
            go_on(start + latency)

    def _end(self, communicator: Communicator, meeting: Meeting, end: float) -> None:
        machine = self.machine
        extend = machine.spans.data.extend
        if meeting.arrivals[0][0].state.tensors is not None:
            self._exchange(communicator, meeting)
        sent = self._sent(communicator, meeting)
        for thread, instruction, mine, start in meeting.arrivals:
            me = thread.state.me
            sends = sent(me.at(instruction.over))
            extend((me.rank, thread.index, mine.label, thread.step, start, end, sends))
            thread.clock = end
            machine.resume(thread)
        if meeting.plan is not None and machine.folding.folds:
            self._note_differences(communicator, meeting, sent)

    def _sent(self, communicator: Communicator, meeting: Meeting) -> Callable[[int], float]:
        """What the member at a position sends."""
        instruction, n = meeting.arrivals[0][1], len(communicator.members)
        if n == 1:
            return lambda position: 0.0
        if meeting.plan is not None and not meeting.sizes:
            whole, shares = given(instruction, n, meeting.size), meeting.plan.sent
            return lambda position: whole * shares[position]
        if not meeting.sizes:
            size = meeting.size * n if gives_all(instruction) else meeting.size
            return lambda position: sent_bytes(instruction, n, size, position)
        sizes = [meeting.sizes[leader] for leader in communicator.links.of]
        if isinstance(instruction, AllToAll):
            return sizes.__getitem__
        return lambda position: gathered_bytes(sizes, position)

    def _note_differences(self, communicator: Communicator, meeting: Meeting, sent: Callable[[int], float]) -> None:
        """Members may send more or less than those who are simulated in their places."""
        assert meeting.plan is not None
        over, links = meeting.arrivals[0][1].over, communicator.links
        for position in links.uneven(meeting.plan):
            key = links.of[position], over, position
            self.more[key] = self.more.get(key, 0.0) + sent(position) - sent(links.places[position])

    def sent(self, spans: Spans) -> tuple[float, ...]:
        """Bytes that every rank sent, those that are not simulated too."""
        machine, sums = self.machine, dict.fromkeys(self.machine.by_rank, 0.0)
        for rank, nbytes in zip(spans.data[RANK::WIDTH], spans.data[BYTES::WIDTH]):
            sums[int(rank)] += nbytes
        found = [sums[leader] for leader in machine.folding.of]
        over = {axis for _, axis, _ in self.more}
        for rank, leader in enumerate(machine.folding.of):
            me = machine.by_rank[leader].me
            found[rank] += sum(self.more.get((leader, axis, me.position(rank, axis)), 0.0) for axis in over)
        return tuple(found)

    def _exchange(self, communicator: Communicator, meeting: Meeting) -> None:
        from .combining import combine

        by_rank = {thread.state.me.rank: thread.state.tensors for thread, *_ in meeting.arrivals}
        combine(meeting.arrivals[0][1], [by_rank[member] for member in communicator.members])  # type: ignore[misc]
