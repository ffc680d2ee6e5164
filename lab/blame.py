"""Which rank is to blame when several look broken, and the one error that says so.

One rank's failure shows on all: its peers lose their connection or wait for ever. So what was seen of each rank is
a symptom with a gravity, and the gravest is blamed: a dead process, then one without signs of life, then an error
that was raised, then a hang; an error raised while waiting for others is only a consequence.
"""

from __future__ import annotations

import linecache
import pickle
import re
import signal
from dataclasses import dataclass
from enum import IntEnum

from simulator.errors import RankError

from .board import Status


class Gravity(IntEnum):
    """Kinds of symptom, the gravest first."""

    DEAD = 0
    ABORTED = 1  # gloo aborts the process when it loses a peer at a bad moment, so another death is graver
    SILENT = 2
    RAISED = 3
    STUCK = 4
    CONSEQUENCE = 5


@dataclass(frozen=True)
class Symptom:
    """What was seen of one rank. ``error`` is what its function raised, if that was a ValueError."""

    rank: int
    gravity: Gravity
    report: str
    status: Status
    error: ValueError | None = None

    @property
    def order(self) -> tuple[int, ...]:
        """The least is blamed. Of several hanging ranks, one that does not wait, then the one least far."""
        if self.gravity == Gravity.STUCK:
            return (self.gravity, self.status.waiting, self.status.step, self.status.notes, self.status.beats)
        return (self.gravity,)


def death(rank: int, code: int, last_words: str, status: Status) -> Symptom:
    """A process that is no more; ``code`` as subprocess gives it, negative for a signal."""
    report = f"was killed by {_signal(-code)} ({code})" if code < 0 else f"exited with code {code} in mid-run"
    if last_words.strip():
        report += "; its last output:\n" + "\n".join(last_words.strip().splitlines()[-10:])
    gravity = Gravity.ABORTED if code == -signal.SIGABRT else Gravity.DEAD
    return Symptom(rank, gravity, report, status)


def raised(rank: int, report: str, pickled: bytes, status: Status) -> Symptom:
    """A function that raised; while it waited for others, that is probably their failure and not its own.

    ``pickled`` is the error itself if it is a ValueError: such an error says what is wrong by itself.
    """
    error = _unpickled(pickled)
    lost = status.waiting and error is None
    return Symptom(rank, Gravity.CONSEQUENCE if lost else Gravity.RAISED, with_source(report), status, error)


def error_of(symptom: Symptom) -> Exception:
    """The error that the user sees: a RankError, or the ValueError that the function raised, with a note."""
    status = symptom.status
    failure = RankError(symptom.rank, status.step, status.instruction, symptom.report)
    if symptom.error is None:
        return failure
    symptom.error.add_note(f"(rank {symptom.rank}, step {status.step}, last instruction: {status.instruction})")
    symptom.error.__cause__ = failure
    return symptom.error


def with_source(report: str) -> str:
    """A remote traceback with the lines of notebook cells, which only this process knows."""

    def add(found: re.Match[str]) -> str:
        line = linecache.getline(found["file"], int(found["line"])).strip()
        return f"{found[0]}    {line}\n" if line else found[0]

    # a frame's line, not followed by its text
    return re.sub(r'  File "(?P<file>[^"]+)", line (?P<line>\d+), in .*\n(?!    )', add, report)


def _unpickled(error: bytes) -> ValueError | None:
    try:
        return pickle.loads(error) if error else None  # type: ignore[no-any-return]
    except Exception:  # a class that only the rank can load, or one that cannot be rebuilt: its traceback will do
        return None


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
