"""Streams under the virtual clock: sub-programs that run beside a rank's program, and waiting for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .hazards import awaits
from .program import Start, Wait
from .stack import iter_program
from .threads import BLOCKED, Decoded, Task, Thread

if TYPE_CHECKING:
    from .virtual import Machine


class Streams:
    """Runs what is started on a stream, one task after another, in the order of the Starts."""

    def __init__(self, machine: Machine):
        self.machine = machine

    def start(self, thread: Thread, start: Start, decoded: Decoded) -> None:
        """Queue a sub-program; the one who starts it goes on at once."""
        state = thread.state
        stream = state.streams.get(start.on)
        if stream is None:
            index = self.machine.spans.stream(start.on)
            stream = state.streams[start.on] = Thread(state, start.on, index)
        step = thread.step if start.step is None else start.step
        task = Task(start.what, thread.clock, step, len(state.history or ()) - 1)
        state.tasks.append(task)
        stream.queue.append(task)
        if stream.task is None and self._next(stream):
            self.machine.resume(stream)

    def wait(self, thread: Thread, wait: Wait, decoded: Decoded) -> object:
        """Wait for the tasks that touch a value, or for all."""
        state, value = thread.state, wait.value
        if not state.tasks:
            return None
        wanted = [task for task in state.tasks if awaits(value, task.what)]
        state.tasks = [] if len(wanted) == len(state.tasks) else [task for task in state.tasks if task not in wanted]
        for task in wanted:
            if task.end is None:
                task.waiters = task.waiters or []
                task.waiters.append(thread)
                thread.waits += 1
            else:
                thread.clock = max(thread.clock, task.end)
        return BLOCKED if thread.waits else None

    def ended(self, stream: Thread, task: Task) -> bool:
        """A task is done: whoever waited only for it goes on. True when the stream has another."""
        task.end = stream.clock
        for waiter in task.waiters or ():
            waiter.waits -= 1
            waiter.clock = max(waiter.clock, task.end)
            if not waiter.waits:
                self.machine.resume(waiter)
        return self._next(stream)

    def _next(self, stream: Thread) -> bool:
        stream.task = stream.program = None
        if not stream.queue:
            return False
        stream.task = task = stream.queue.popleft()
        stream.clock = max(stream.clock, task.issued)
        stream.program = iter_program(task.what)
        stream.result = None
        return True
