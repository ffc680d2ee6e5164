"""Until under the virtual clock: work that goes on until a message is here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .program import Instruction, Until
from .stack import iter_program
from .threads import BLOCKED, Decoded, Guard, Parcel, Thread

if TYPE_CHECKING:
    from .virtual import Machine


class Races:
    """A message against a rank's work. The sooner of two things must be seen first, so nothing here runs ahead."""

    def __init__(self, machine: Machine):
        self.machine = machine

    def until(self, thread: Thread, until: Until, decoded: Decoded) -> object:
        """Begin: the work replaces the program of the thread until one of the two has won."""
        state = thread.state
        assert thread.program is not None
        source = state.me.peer(until.recv.over, until.recv.source)
        guard, what = Guard(until.recv, thread.program, source, live=state.replay is None), until.what
        if state.replay is not None:
            guard.stopped = self.machine.ending.replayed(state)
            what = what[: guard.stopped] if guard.abandoned else what
        thread.program = iter_program(what)
        self.machine.at(thread.clock, lambda: self._begin(thread, guard))
        return BLOCKED

    def _begin(self, thread: Thread, guard: Guard) -> None:
        thread.guard, guard.posted = guard, thread.clock
        parcel = self.machine.mail.take(thread.state, guard.source, guard.recv) if guard.live else None
        if parcel is not None:
            self.abandon(thread, parcel)
            return
        if guard.live:
            self.machine.mail.post(thread.state)
        self.machine.resume(thread)

    def compute(self, thread: Thread, instruction: Instruction, decoded: Decoded, length: float) -> None:
        """A computation that a message may cut short."""
        guard, start, machine = thread.guard, thread.clock, self.machine
        assert guard is not None
        guard.running = (decoded, start)

        def complete() -> None:
            if thread.guard is not guard:
                return
            thread.clock = start + length
            machine.complete(thread, instruction, decoded, start)
            guard.running = None
            machine.resume(thread)

        machine.at(start + length, complete)

    def abandon(self, thread: Thread, parcel: Parcel) -> None:
        """The message is here before the work is done."""
        guard, machine = thread.guard, self.machine
        assert guard is not None and thread.program is not None
        thread.program.close()
        thread.clock = max(thread.clock, machine.env.now)
        if guard.running is not None:
            machine.observe(thread, *guard.running)
        thread.program, thread.guard = guard.outer, None
        thread.state.outcomes.append(guard.done)
        machine.resume(thread, machine.mail.accept(thread, guard.recv, parcel, thread.clock, abandoned=True))

    def ended(self, thread: Thread) -> bool:
        """The work is done first: wait for the message. True when it is here already."""
        guard = thread.guard
        assert guard is not None
        thread.program, thread.guard = guard.outer, None
        thread.state.outcomes.append(guard.stopped)
        thread.result = self.machine.mail.receive(thread, guard.recv, guard.source, guard.abandoned, guard.parcel)
        thread.current = guard.recv if thread.result is BLOCKED else None
        return thread.result is not BLOCKED
