"""The engine ``native``: PyTorch's own implementation of a strategy, on the same problem, weights, data and rule.

It is what users deploy. The Run that it returns says what was used in its note "engine", and counts the bytes of the
collectives that PyTorch really issued.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simulator.workload import rule_of

from .choosing import choose
from .working import run_rank

if TYPE_CHECKING:
    from simulator.run import Run

    from ..running import Job

__all__ = ["execute"]


def execute(job: Job, timeout: float, progress: bool) -> Run:
    """Train with PyTorch's own implementation of the job's strategy. ValueError where it has none."""
    from ..program import everywhere

    choice = choose(job.stack)
    choice.check(rule_of(job.stack, job.problem))
    return job.run(everywhere(run_rank, job, timeout, progress), {"engine": f"native: {choice.text}"})
