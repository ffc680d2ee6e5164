"""Streams under the wall clock: threads that run sub-programs, and collectives under way."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from simulator.program import Instruction

from .clocks import Clock


@dataclass
class Pending:
    """Something started and not yet waited for; ``finish`` waits for it."""

    what: tuple[Instruction, ...]
    finish: Callable[[], object]


class Underway:
    """A collective that has begun. Whoever needs its result calls ``wait``, from any thread."""

    def __init__(
        self,
        work: Any,
        after: Callable[[], None],
        clock: Clock,
        report: Callable[[float], None],
        tells_its_end: bool = True,
    ):
        self.work, self.after, self.clock, self.report = work, after, clock, report
        self.lock, self.done = Lock(), False
        self.ended: list[float] = []
        future = future_of(work) if tells_its_end else None  # on a GPU it ends when it is queued
        if work is None:  # alone along the axis: there is nothing to wait for
            self.ended.append(clock.now())
        elif future is not None:
            future.add_done_callback(lambda _: self.ended.append(clock.now()))

    def wait(self) -> None:
        """Wait for its end, and report when that was: before anybody asked, perhaps."""
        with self.lock:
            if not self.done:
                if self.work is not None:
                    self.work.wait()
                self.after()
                self.report(self.ended[0] if self.ended else self.clock.now())
                self.done = True


@dataclass
class Lane:
    """One stream of a rank: what is put on it runs in a thread of its own, one thing after another.

    A lone collective needs no thread: its backend already runs a group's collectives in order. ``enter`` is what the
    thread does first.
    """

    name: str
    enter: Callable[[], None]
    thread: ThreadPoolExecutor | None = None
    last: Future[None] | None = None
    collectives: list[Underway] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        """Whether its thread has nothing to do."""
        return self.last is None or self.last.done()

    def follow(self, collective: Underway) -> None:
        """Remember a collective, so that what is put here later waits for it."""
        self.collectives = [*(other for other in self.collectives if not other.done), collective]

    def finish(self, collective: Underway) -> None:
        """Wait for a collective, after those before it: a stream's end one after another."""
        if collective in self.collectives:
            for other in self.collectives[: self.collectives.index(collective)]:
                other.wait()
        collective.wait()

    def run(self, action: Callable[[], None]) -> Future[None]:
        """Do something after everything that was put here before."""
        self.thread = self.thread or ThreadPoolExecutor(1, thread_name_prefix=self.name, initializer=self.enter)
        before, self.collectives = self.collectives, []
        self.last = self.thread.submit(_after, before, action)
        return self.last

    def close(self) -> None:
        """End the thread."""
        if self.thread is not None:
            self.thread.shutdown(wait=False, cancel_futures=True)


def _after(before: list[Underway], action: Callable[[], None]) -> None:
    for other in before:
        other.wait()
    action()


def future_of(work: Any) -> Any:
    """The Future of a Work; None where it has none, as messages and barriers in gloo."""
    try:
        return work.get_future() if work is not None else None
    except RuntimeError:
        return None
