"""The virtual clock: interprets programs on SimPy.

Each rank has a thread for its program and one for every stream. A thread has a clock of its own that runs ahead
through computation; only communication makes events, so that a simulation costs what its messages cost. Threads that
can go on stand in one queue, first come first served: the same inputs give the same Run, bit for bit.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import simpy

from .cluster import Cluster
from .computing import COMPUTING
from .costs import changing, seconds
from .delays import Delays
from .ending import Ending
from .folding import Folding, apart
from .gathering import Gathering
from .hazards import Hazard, InFlight
from .mail import Mail
from .network import Network
from .noise import Noise
from .observed import load
from .payloads import size_of
from .program import Collective, Compute, Copy, Instruction, Record, Recv, Send, Start, Until, Wait
from .races import Races
from .rank import Rank
from .spans import COMPUTE, Sample, Spans
from .stack import Stack
from .streams import Streams
from .threads import BLOCKED, Decoded, State, Thread

if TYPE_CHECKING:
    from .learning import Tensors


class Machine:
    """A simulation of one strategy on one cluster. ``run()`` once; then read ``spans``, ``samples``, ``states``."""

    def __init__(
        self,
        stack: Stack,
        ranks: Sequence[Rank],
        cluster: Cluster,
        seed: int = 0,
        noise: Noise | None = None,
        tensors: Sequence[Tensors] | None = None,
        replay: Sequence[Sequence[int]] | None = None,
        check: bool = False,
        network: Network | None = None,
        folding: Folding | None = None,
        detail: str = "flow",
    ):
        self.network = Network(simpy.Environment(), cluster.bandwidth) if network is None else network
        self.env = self.network.env
        self.stack, self.cluster, self.check, self.detail = stack, cluster, check, detail
        self.folding = folding or apart(cluster.ranks)
        self.spans = Spans()
        self.samples: list[Sample] = []
        self.ready: deque[Thread] = deque()
        self.delays = Delays(cluster.overheads, seed)
        self.mail, self.gathering = Mail(self), Gathering(self)
        self.streams, self.races, self.ending = Streams(self), Races(self), Ending(self)
        self.decoders: dict[type[Instruction], Callable[..., object]] = {
            Start: self.streams.start, Wait: self.streams.wait, Until: self.races.until,
            Send: self.mail.send, Recv: self.mail.recv, Record: self._record,
        }  # fmt: skip
        shared: dict[object, dict[Instruction, Decoded]] = {}
        self.states = [
            State(
                me,
                shared.setdefault((cluster.device_of(me.rank), load(me)), {}),
                noise.factor(me.rank, seed) if noise else None,
                tensors[me.rank] if tensors else None,
            )
            for me in ranks
        ]
        self.by_rank = {state.me.rank: state for state in self.states}
        for state in self.states:
            if replay is not None:
                state.replay = deque(replay[state.me.rank])
            if check:
                state.history = []
                state.flight = None if stack.order.static else InFlight()

    def state_of(self, rank: int) -> State:
        """The state of a rank, or of the one that is simulated in its place."""
        return self.by_rank[self.folding.of[rank]]

    def run(self) -> None:
        """Run all programs to their ends. Raises ProgramError when they cannot get there."""
        with uncollected():
            self.begin()
            self.env.run()
        self.ending.check()

    def begin(self, time: float = 0.0) -> None:
        """Begin all programs, at a time."""
        for state in self.states:
            state.main = Thread(state, COMPUTE, self.spans.stream(COMPUTE))
            state.main.clock = time
            state.main.program = self.stack.program(self.folding.watched(state.me))
            self.ready.append(state.main)
        self._drain()

    # ------------------------------------------------------------ time

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Do something when the simulation reaches a time; at once if it is there."""
        if time <= self.env.now:
            action()
            return

        def wake(event: object) -> None:
            action()
            self._drain()

        self.env.timeout(time - self.env.now).callbacks.append(wake)

    def resume(self, thread: Thread, result: object = None) -> None:
        """Let a thread go on, after those that could before it."""
        thread.result = result
        self.ready.append(thread)

    def _drain(self) -> None:
        ready = self.ready
        try:
            while ready:
                self._advance(ready.popleft())
        except Hazard as hazard:
            raise self.ending.error(str(hazard)) from None

    def drained(self, action: Callable[[], None]) -> Callable[[], None]:
        """An action for the network to call: threads that it lets go on do so at once."""

        def act() -> None:
            action()
            self._drain()

        return act

    # ------------------------------------------------------------ interpretation

    def _advance(self, thread: Thread) -> None:
        """Interpret a thread's program until it must wait."""
        state, stream, extend = thread.state, thread.index, self.spans.data.extend
        me, known, factor = state.me, state.known, state.factor
        result, thread.result, thread.current = thread.result, None, None
        program = thread.program
        assert program is not None
        while True:
            try:
                instruction = program.send(result)
            except StopIteration:
                if not self._ended(thread):
                    return
                program = thread.program
                assert program is not None
                result, thread.result = thread.result, None
                continue
            decoded = known.get(instruction)
            if decoded is None:
                decoded = self._decode(state, instruction)
            if self.check:
                self._examine(thread, instruction, decoded)
            if decoded.handler is not None:
                result = decoded.handler(thread, instruction, decoded)
                if result is BLOCKED:
                    thread.current = instruction
                    return
                if thread.guard is not None:
                    thread.guard.done += 1
                continue
            step = me.step if thread.task is None else thread.task.step
            length = decoded.seconds
            if length < 0:
                length = self._seconds(me, instruction)
            if factor is not None:
                length *= factor(step)
            if thread.guard is not None and thread.guard.live:
                self.races.compute(thread, instruction, decoded, length)
                return
            start = thread.clock
            thread.clock = end = start + length
            if state.tensors is not None:
                self.maths(thread, instruction, end)
            elif decoded.stores:  # without tensors nobody else knows how large the copy is
                me.store(instruction)  # type: ignore[arg-type]
            extend((me.rank, stream, decoded.label, step, start, end, 0.0))
            result = None

    def _decode(self, state: State, instruction: Instruction) -> Decoded:
        """Look up all that stays the same whenever this instruction is run by this rank, or by one like it."""
        if not isinstance(instruction, Instruction):
            raise ValueError(f"a program yields instructions; that of rank {state.me.rank} yields {instruction!r}")
        handler = self.decoders.get(type(instruction))
        cost = size = 0.0
        if isinstance(instruction, Collective):
            handler, size = self.gathering.join, size_of(state.me, instruction)
        elif handler is None:
            if not isinstance(instruction, COMPUTING):
                raise ValueError(f"no machine knows {instruction}: a program's own maths is a Compute(function, …)")
            cost = -1.0 if changing(instruction) else self._seconds(state.me, instruction)
        text = str(instruction)
        stores = isinstance(instruction, (Copy, Compute))
        decoded = state.known[instruction] = Decoded(handler, cost, self.spans.label(text), size, text, stores)
        return decoded

    def _seconds(self, me: Rank, instruction: Instruction) -> float:
        return seconds(instruction, me, self.cluster.device_of(me.rank))

    def maths(self, thread: Thread, instruction: Instruction, end: float) -> None:
        """Do with tensors what an instruction says, where there are any."""
        state = thread.state
        noted = state.tensors.compute(instruction) if state.tensors is not None else None
        if noted is not None:
            self._note(thread, end, *noted, state.me.version)

    def complete(self, thread: Thread, instruction: Instruction, decoded: Decoded, start: float) -> None:
        """A computation that began at ``start`` is done now, by the thread's clock: what ``_advance`` does inline."""
        if thread.state.tensors is not None:
            self.maths(thread, instruction, thread.clock)
        elif decoded.stores:
            thread.state.me.store(instruction)  # type: ignore[arg-type]
        self.observe(thread, decoded, start)
        if thread.guard is not None:
            thread.guard.done += 1

    def observe(self, thread: Thread, decoded: Decoded, start: float, sent: float = 0.0) -> None:
        """Keep a span that ends now, by the thread's clock."""
        rank = thread.state.me.rank
        self.spans.data.extend((rank, thread.index, decoded.label, thread.step, start, thread.clock, sent))

    def _record(self, thread: Thread, record: Record, decoded: Decoded) -> None:
        self._note(thread, thread.clock, record.name, record.value)

    def _note(self, thread: Thread, time: float, name: str, value: float, version: int = 0) -> None:
        self.samples.append(Sample(thread.state.me.rank, thread.step, time, name, value, version))

    def _ended(self, thread: Thread) -> bool:
        """A program is over: an Until waits for its message, a stream takes its next task. True: go on."""
        if thread.guard is not None:
            return self.races.ended(thread)
        return thread.task is not None and self.streams.ended(thread, thread.task)

    # ------------------------------------------------------------ checks

    def _examine(self, thread: Thread, instruction: Instruction, decoded: Decoded) -> None:
        state = thread.state
        if thread is not state.main or state.history is None or thread.guard is not None:
            return  # the work of an Until was examined as a whole
        state.history.append(decoded.text)
        if state.flight is not None:
            thread.current = instruction
            state.flight.issue(instruction, COMPUTE)
            thread.current = None


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the garbage collector: ranks form no cycles worth it, and where there are many it takes most time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
