"""Errors with names. Each says the rule, the value and the remedy; the command line prints them as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .footprint import Footprint


class ProgramError(ValueError):
    """A program cannot run: a deadlock, mismatched collectives, a message nobody takes, or a hazard.

    The text shows the rank-by-step grid with the bad step marked.
    """


class DivergedError(ValueError):
    """A loss is no longer a finite number."""

    @classmethod
    def of_loss(cls, rank: int, step: int, loss: float) -> DivergedError:
        """What a rank says whose loss in a step is not finite."""
        return cls(
            f"a loss is a finite number; rank {rank} got {loss} in step {step}: the training diverged, or the data hold"
            " NaN; try a smaller learning rate"
        )


class OutOfMemoryError(ValueError):
    """A plan needs more memory than a device has.

    ``rank`` is the one that lacks most; it needs ``needed`` of ``available`` bytes, by kind ``held``.
    """

    def __init__(self, text: str, rank: int, needed: float, available: float, held: Footprint):
        self.rank, self.needed, self.available, self.held = rank, needed, available, held
        super().__init__(text)

    def __reduce__(self) -> tuple[type, tuple[str, int, float, float, Footprint]]:
        return type(self), (str(self), self.rank, self.needed, self.available, self.held)


class RunFileError(ValueError):
    """A file is not a Run, or is one of another schema version."""


class RankError(RuntimeError):
    """A real rank failed, was killed, stopped or never came.

    ``rank``, ``step`` and ``instruction`` say where it was; ``report`` is its traceback or what was seen of it.
    """

    def __init__(self, rank: int, step: int, instruction: str, report: str):
        self.rank, self.step, self.instruction, self.report = rank, step, instruction, report
        super().__init__(f"rank {rank} {report.strip()}\n(rank {rank}, step {step}, last instruction: {instruction})")

    def __reduce__(self) -> tuple[type, tuple[int, int, str, str]]:
        return type(self), (self.rank, self.step, self.instruction, self.report)


class CannotFold(Exception):
    """Ranks were taken for alike that are not, so all must be simulated; the simulator catches it itself."""


class Uneven(CannotFold):
    """Ranks can fold if those are told apart whose places along ``axis`` have different ``marks``, one a place."""

    def __init__(self, axis: str, marks: tuple[int, ...]):
        self.axis, self.marks = axis, marks
        super().__init__("a collective that loads its members' links unevenly shares links with other bytes")
