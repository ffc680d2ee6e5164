"""Metrics of time: how long it took, how long a step takes, and what of it was spent computing. All in seconds."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from ..spans import END, RANK, START, STEP
from .rows import began, computing, covered, each_rank

if TYPE_CHECKING:
    from ..run import Run


def makespan(run: Run) -> float:
    """Seconds from the first start of any span to the last end. 0 without spans."""
    first, last = run.spans.extent
    return last - first


def step_ends(run: Run) -> list[float]:
    """When the workers had ended each step, in seconds since the run's first start.

    A step is ended when every span of it and of the steps before, on any stream of any worker, has ended.
    """
    import numpy as np

    table, origin = run.spans.table(), began(run)
    ours = table[np.isin(table[:, RANK], run.workers) & (table[:, STEP] >= 0) & (table[:, STEP] < run.steps)]
    ends = np.full(run.steps, origin)
    np.maximum.at(ends, ours[:, STEP].astype(int), ours[:, END])
    return (np.maximum.accumulate(ends) - origin).tolist()


def step_times(run: Run) -> list[float]:
    """Seconds per step: from the end of the step before (for the first, the run's first start) to its own end."""
    ends = step_ends(run)
    return [end - before for before, end in pairwise([0.0, *ends])]


def step_time(run: Run) -> float:
    """The median of ``step_times`` [s], which one slow first step does not move. 0 without steps."""
    times = sorted(step_times(run))
    return (times[len(times) // 2] + times[(len(times) - 1) // 2]) / 2 if times else 0.0


def steady_times(run: Run) -> list[float]:
    """The steps that later ones are like: all after the first, which begins with nothing to overlap.

    A run of one step has only that; it then lasts until the last span has ended.
    """
    return step_times(run)[1:] if run.steps > 1 else [makespan(run)]


def steady_step(run: Run) -> float:
    """The mean of ``steady_times`` [s]: what another step adds to the run. With noise it is not the median."""
    times = steady_times(run)
    return math.fsum(times) / len(times)


def samples_per_step(run: Run) -> float:
    """Samples that the workers learn from per step, in the mean: the batch, unless rounds leave clients out.

    A worker takes its share of the batch in each step in which it computes. Gradients that a server drops count too,
    as those of backup workers.
    """
    import numpy as np

    table = computing(run)
    table = table[(table[:, STEP] >= 0) & (table[:, STEP] < run.steps)]
    active = each_rank(run, table, lambda rows: len(np.unique(rows[:, STEP])))
    shares = run.shares if all(run.shares) else (1,) * len(run.workers)
    taken = sum(share * active[worker] for worker, share in zip(run.workers, shares, strict=True))
    return run.batch * taken / (run.steps * sum(shares)) if taken else float(run.batch)


def throughput(run: Run) -> float:
    """Samples per second: ``samples_per_step * steps / makespan``, where a step is mostly one of the whole batch.

    This holds for asynchronous runs too, where each of W workers takes ``batch / W`` samples in each of its steps.
    Infinite when everything was free.
    """
    seconds = makespan(run)
    return samples_per_step(run) * run.steps / seconds if seconds else math.inf


def busy(run: Run) -> list[float]:
    """Seconds in which each rank's device computed for at least one of its streams.

    Communication and waiting do not count, nor does loading, which is work of the host.
    """
    return each_rank(run, computing(run), lambda rows: covered(rows[:, START], rows[:, END]))


def steady_busy(run: Run) -> list[float]:
    """Seconds per step that each rank computed during the steps that ``steady_times`` has."""
    ends = step_ends(run)
    since, until = (ends[0], ends[-1]) if len(ends) > 1 else (0.0, makespan(run))
    origin, count = began(run), len(steady_times(run))

    table = computing(run).copy()
    table[:, START:END + 1] = table[:, START:END + 1].clip(origin + since, origin + until)
    return each_rank(run, table, lambda rows: covered(rows[:, START], rows[:, END]) / count)


def bubble(run: Run) -> float:
    """The idle fraction of the workers' wall time: the mean over workers of ``1 - busy / makespan``.

    For p equal stages and m microbatches it is (p-1)/(m+p-1). It is not the bubble *overhead* (p-1)/m that Narayanan
    et al. 2021 (arXiv:2104.04473) report, the idle time over the ideal time: see ``bubble_overhead``.
    """
    seconds = makespan(run)
    if not seconds or not run.workers:
        return 0.0
    times = busy(run)
    return 1.0 - math.fsum(times[worker] for worker in run.workers) / (len(run.workers) * seconds)


def bubble_overhead(run: Run) -> float:
    """The workers' idle time over the time they computed: (p-1)/m for p equal stages and m microbatches.

    Source: the bubble time fraction of Narayanan et al. 2021 (arXiv:2104.04473), section 2.2.
    """
    fraction = bubble(run)
    return fraction / (1.0 - fraction) if fraction < 1.0 else math.inf
