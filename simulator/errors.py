"""Errors with names. Each says the rule, the value and the remedy; the command line prints them as they are."""

from __future__ import annotations


class ProgramError(ValueError):
    """A program cannot run: a deadlock, mismatched collectives, a message nobody takes, or a hazard.

    The text shows the rank-by-step grid with the bad step marked.
    """


class DivergedError(ValueError):
    """A loss is no longer a finite number."""


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
