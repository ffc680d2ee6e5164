"""Watching a gang at work: collects what its ranks answer, or finds out which of them is broken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from . import blame
from .blame import Gravity, Symptom
from .board import Status
from .channel import Channels, Frame
from .gang import Gang

STARTUP = 30.0
"""Seconds beyond the timeout that ranks have for arriving: loading torch takes 1 to 15 of them."""
SETTLE = 0.3
"""Seconds between the first symptom and the verdict, in which graver ones may come."""
_TICK = 0.1
_LONGEST_TICK = 0.5


class StoppedError(RuntimeError):
    """The run was stopped from outside, so it has no results."""


@dataclass(frozen=True)
class Seen:
    """The last that was seen of a rank, and when [s]: of its work (``moved``) and of its life (``beaten``)."""

    status: Status
    moved: float
    beaten: float

    def again(self, status: Status, now: float, heard: bool) -> Seen:
        """The same rank, looked at once more; ``heard`` says that it sent something."""
        moved = heard or (status.notes, status.fraction) != (self.status.notes, self.status.fraction)
        beaten = heard or status.beats != self.status.beats
        return Seen(status, now if moved else self.moved, now if beaten else self.beaten)


class Watch:
    """One run of a gang, as seen by the thread that waits for it.

    ``timeout`` [s] is how long a rank may go without progress; ``report`` hears the fraction done ten times a second.
    """

    def __init__(self, gang: Gang, timeout: float, stopped: threading.Event, report: Callable[[float], None]):
        self._gang, self._timeout, self._stopped, self._report = gang, timeout, stopped, report
        self._ranks = range(len(gang.workers))
        self._channels = Channels([worker.channel for worker in gang.workers])
        self._now, self._looked, self._reported = 0.0, time.monotonic(), 0.0

    def arrive(self) -> None:
        """Wait until every rank has joined the process group."""
        frames = self._collect(Frame("join", {"port": self._gang.open_store()}), self._absent)
        self._gang.joined = True
        for frame in frames:
            self._gang.sources.update(frame.facts["sources"])

    def work(self, job: Frame) -> list[bytes]:
        """Give every rank the job; what they answer, in rank order. Raises the error of the rank that failed."""
        self._gang.clear()
        frames = self._collect(job, self._late)
        for frame in frames:
            self._gang.sources.update(frame.facts["sources"])
            self._gang.spent |= frame.facts["spent"]
        self._report(1.0)
        return [frame.body for frame in frames]

    def close(self) -> None:
        """Stop listening."""
        self._channels.close()

    # ---------------------------------------------------------------- looking

    def _collect(self, job: Frame, overdue: Callable[[], list[Symptom]]) -> list[Frame]:
        """One answer per rank, or the error of the rank to blame."""
        self._seen = {rank: Seen(self._gang.status(rank), self._now, self._now) for rank in self._ranks}
        self._answers: dict[int, Frame] = {}
        self._closed: dict[int, float] = {}
        self._symptoms: dict[int, Symptom] = {}
        self._channels.post(job)
        first = None
        while len(self._answers) < len(self._ranks):
            self._look()
            late = [] if self._symptoms else overdue()
            self._symptoms.update({symptom.rank: symptom for symptom in late})
            if self._symptoms:
                first = self._now if first is None else first
                if late or self._now - first >= SETTLE:
                    raise self._verdict()
        return [self._answers[rank] for rank in self._ranks]

    def _look(self) -> None:
        """Wait for a moment, then see what each rank said, whether it moved and whether it lives."""
        heard = set()
        for rank, frames in self._channels.listen(_TICK):
            if frames is None:
                self._closed[rank] = self._now
                continue
            heard.add(rank)
            for frame in frames:
                self._take(rank, frame)
        self._tick()
        for rank in self._ranks:
            self._seen[rank] = self._seen[rank].again(self._gang.status(rank), self._now, rank in heard)
            self._look_for_death(rank)
        if self._stopped.is_set():
            raise StoppedError("the run was stopped before it ended, so it has no results; start it again for some")

    def _take(self, rank: int, frame: Frame) -> None:
        if frame.kind == "raised":
            status = self._gang.status(rank)
            self._symptoms[rank] = blame.raised(rank, frame.facts["report"], frame.body, status)
        else:
            self._answers[rank] = frame

    def _tick(self) -> None:
        # No tick is longer than half a second: when this process itself was asleep, its ranks are not late for it.
        now = time.monotonic()
        self._now += min(now - self._looked, _LONGEST_TICK)
        self._looked = now
        if self._now - self._reported >= _TICK:
            self._reported = self._now
            self._report(min(seen.status.fraction for seen in self._seen.values()))

    def _look_for_death(self, rank: int) -> None:
        worker, status = self._gang.workers[rank], self._seen[rank].status
        code = worker.ended()
        if rank in self._symptoms:
            return
        if code is not None:
            self._symptoms[rank] = blame.death(rank, code, worker.text(), status)
        elif self._now - self._closed.get(rank, self._now) > 1.0:
            self._symptoms[rank] = Symptom(rank, Gravity.DEAD, "closed the channel to its parent", status)

    # ---------------------------------------------------------------- judging

    def _absent(self) -> list[Symptom]:
        """Ranks that did not join in time."""
        patience = self._timeout + STARTUP
        if self._now < patience:
            return []
        report = f"never arrived: {patience:g} s after its start it had not joined the others"
        return [Symptom(rank, Gravity.STUCK, report, self._seen[rank].status) for rank in self._unanswered()]

    def _late(self) -> list[Symptom]:
        """Ranks that do nothing. One that waits for others may do so for as long as any other makes progress."""
        late = {rank for rank in self._ranks if self._now - self._seen[rank].moved >= self._timeout}
        stuck = [r for r in self._unanswered() if r in late and (len(late) == len(self._ranks) or not self._waits(r))]
        # a heart that stops after the last note stands still a little less long than the work
        patience = max(1.0, self._timeout / 2) if stuck else self._timeout
        silent = [rank for rank in self._unanswered() if self._now - self._seen[rank].beaten >= patience]
        return [self._symptom(rank, Gravity.SILENT) for rank in silent] + [
            self._symptom(rank, Gravity.STUCK) for rank in stuck if rank not in silent
        ]

    def _unanswered(self) -> list[int]:
        return [rank for rank in self._ranks if rank not in self._answers]

    def _waits(self, rank: int) -> bool:
        return self._seen[rank].status.waiting

    def _symptom(self, rank: int, gravity: Gravity) -> Symptom:
        still = f"for {self._timeout:g} s"
        report = {
            Gravity.SILENT: f"shows no sign of life {still}: it was probably stopped",
            Gravity.STUCK: f"made no progress {still}",
        }[gravity]
        return Symptom(rank, gravity, report, self._seen[rank].status)

    def _verdict(self) -> Exception:
        symptom = min(self._symptoms.values(), key=lambda symptom: symptom.order)
        if symptom.gravity == Gravity.STUCK and symptom.status.beats:
            stack = self._gang.workers[symptom.rank].whereabouts()
            others = [f"rank {rank}: {self._where(rank)}" for rank in self._ranks if rank != symptom.rank]
            symptom = replace(symptom, report="\n".join(filter(None, [symptom.report, stack, *others])))
        return blame.error_of(symptom)

    def _where(self, rank: int) -> str:
        return "has finished" if rank in self._answers else str(self._seen[rank].status)
