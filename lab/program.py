"""The engine ``program``: ranks interpret the strategy's own program."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from simulator.run import Run

from . import torchrun
from .launch import run_ranks
from .observed import Observed
from .wall import run_rank

if TYPE_CHECKING:
    from .running import Job


def execute(job: Job, timeout: float, progress: bool) -> Run:
    """Run the program of every rank; the Run of all."""
    return job.run(everywhere(run_rank, job, timeout, progress))


def everywhere(function: Callable[..., Observed], job: Job, timeout: float, progress: bool) -> list[Observed]:
    """Call ``function(place, *job.arguments)`` on every rank; what each observed, in rank order.

    Under torchrun the ranks are there already. ``timeout`` [s] is how long the run may go on without any progress;
    ``progress`` shows a bar.
    """
    if torchrun.inside():
        return torchrun.run_here(function, job.ranks, *job.arguments, timeout=timeout)
    with _bar(progress, str(job.stack), job.steps) as bar:
        return run_ranks(function, job.ranks, *job.arguments, timeout=timeout, on_progress=partial(_show, bar))


def _bar(progress: bool, label: str, steps: int) -> Any:
    # delay: a run of a second needs no bar. disable=None: none where nobody looks.
    return tqdm(total=steps, desc=label[:40], unit="step", leave=False, delay=1.0, disable=None if progress else True)


def _show(bar: Any, fraction: float) -> None:
    bar.update(int(fraction * bar.total) - bar.n)
