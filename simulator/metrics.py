"""Metrics: functions from a Run to numbers, the same for both clocks. Times in seconds, sizes in bytes.

They look at whole columns of spans at once; a million spans take well under a second each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from .inflight import in_flight as in_flight
from .spans import BYTES, END, LABEL, RANK, START, STEP, STREAM, kind
from .values import bounds

if TYPE_CHECKING:
    import numpy as np

    from .run import Run

COMPUTATION = frozenset(
    {
        "Load", "Forward", "Loss", "Backward", "BackwardInput", "BackwardWeight", "ForwardPart", "BackwardPart",
        "Update", "Reduce", "Copy", "Compute",
    }
)
"""Types of instruction that compute; all others communicate, wait or take no time."""

PEAKS = "peak memory of each rank [B]"
"""The note that a file of a run has of it."""


class LossRow(NamedTuple):
    """The loss of one worker's step in an asynchronous run: its mean over the worker's own slice of the batch.

    ``time`` [s] is when it was known, ``update`` the server version that its parameters had.
    """

    time: float
    worker: int
    update: int
    loss: float


# ---------------------------------------------------------------- time


def began(run: Run) -> float:
    """When the first span started, on the run's own clock [s]. 0 without spans."""
    table = run.spans.table()
    return float(table[:, START].min()) if len(table) else 0.0


def makespan(run: Run) -> float:
    """Seconds from the first start of any span to the last end. 0 without spans."""
    table = run.spans.table()
    return float(table[:, END].max()) - began(run) if len(table) else 0.0


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


def throughput(run: Run) -> float:
    """Samples per second: ``batch * steps / makespan``.

    This holds for asynchronous runs too, where each of W workers takes ``batch / W`` samples in each of its steps.
    Infinite when everything was free.
    """
    seconds = makespan(run)
    return run.batch * run.steps / seconds if seconds else math.inf


def busy(run: Run) -> list[float]:
    """Seconds in which each rank computed on at least one of its streams. Communication and waiting do not count."""
    import numpy as np

    table = run.spans.table()
    computes = np.array([kind(label) in COMPUTATION for label in run.spans.labels], dtype=bool)
    table = table[computes[table[:, LABEL].astype(int)]]
    table = table[np.lexsort((table[:, START], table[:, RANK]))]
    return [_covered(rows[:, START], rows[:, END]) for rows in _by_rank(run, table)]


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


def exposed_communication(run: Run) -> list[float]:
    """Seconds in which a worker did not compute, from the run's first start to its own last end; one per worker.

    It is what communication costs beyond what computation hides: messages sent or awaited on the compute stream,
    waits for other streams, and so also the waiting that a pipeline's bubble consists of.
    """
    import numpy as np

    table, origin = run.spans.table(), began(run)
    ends, times = np.full(run.ranks, origin), busy(run)
    np.maximum.at(ends, table[:, RANK].astype(int), table[:, END])
    return [float(ends[worker] - origin) - times[worker] for worker in run.workers]


# ---------------------------------------------------------------- learning


def losses(run: Run) -> list[float] | list[LossRow]:
    """How the loss went; empty where only time was simulated.

    Synchronous: per step, the mean over the samples of all ranks that noted a loss (NaN where none did). Asynchronous:
    a row for every step of every worker, in order of time. The loss of one rank and step is the sum of what it noted,
    one number per microbatch; that is the mean over its slice of the batch.
    """
    rows = _loss_rows(run)
    if run.asynchronous:
        return sorted(rows.values())
    sizes, steps = _slices(run), dict[int, list[tuple[int, float]]]()
    for (rank, step), row in rows.items():
        steps.setdefault(step, []).append((sizes.get(rank, 0), row.loss))
    means = {step: _mean(values) for step, values in steps.items()}
    return [means.get(step, math.nan) for step in range(run.steps)] if rows else []


def final_loss(run: Run) -> float | None:
    """The loss of the last step; asynchronous, the mean of as many last rows as there are workers. None without."""
    values = [row.loss if isinstance(row, LossRow) else row for row in losses(run)]
    last = values[-len(run.workers) :] if run.asynchronous else values[-1:]
    return math.fsum(last) / len(last) if last else None


def staleness(run: Run) -> list[int]:
    """How many updates each gradient came late when it was applied: one per gradient and server, in order of time."""
    samples = [sample for sample in run.samples if sample.name == "staleness"]
    return [int(sample.value) for sample in sorted(samples, key=lambda sample: sample.time)]


# ---------------------------------------------------------------- memory, messages, order


def peak_memory(run: Run) -> list[float]:
    """Most bytes that each rank's program holds at once, as ``simulator.memory`` counts them.

    Raises ValueError for programs that depend on what their instructions give, and where the program is not known.
    """
    if PEAKS in run.notes:
        return [float(number) for number in run.notes[PEAKS].split()]
    if run.text is None:
        raise ValueError(
            f"memory follows from the program; this run of {run.strategy} does not know its own: use simulator.memory"
        )
    return run.text.peaks()


def memory_note(run: Run) -> dict[str, str]:
    """What a file keeps of ``peak_memory``; nothing where it cannot be known."""
    if run.text is None or not run.text.stack.order.static:
        return {}
    return {PEAKS: " ".join(map(repr, peak_memory(run)))}


def bytes_sent(run: Run) -> list[float]:
    """Bytes that each rank itself sent: the sum over its spans. What it received counts at the sender."""
    import numpy as np

    table = run.spans.table()
    return np.bincount(table[:, RANK].astype(int), weights=table[:, BYTES], minlength=run.ranks).tolist()


def instructions(run: Run) -> dict[tuple[int, str], list[str]]:
    """Which instructions each (rank, stream) ran, in order of start (of end, then of recording, where starts tie)."""
    import numpy as np

    table, labels = run.spans.table(), np.array(run.spans.labels, dtype=object)
    table = table[np.lexsort((table[:, END], table[:, START], table[:, STREAM], table[:, RANK]))]
    if not len(table):
        return {}
    edges = np.flatnonzero(np.any(np.diff(table[:, [RANK, STREAM]], axis=0), axis=1)) + 1
    return {
        (int(rows[0, RANK]), run.spans.streams[int(rows[0, STREAM])]): labels[rows[:, LABEL].astype(int)].tolist()
        for rows in np.split(table, edges)
    }


def summary(run: Run) -> dict[str, float]:
    """The main numbers by name. Where nothing was learned there is no loss, where nothing was late no staleness."""
    exposed, late, loss = exposed_communication(run), staleness(run), final_loss(run)
    numbers = {
        "makespan": makespan(run),
        "step_time": step_time(run),
        "throughput": throughput(run),
        "bubble": bubble(run),
        "exposed_communication": math.fsum(exposed) / len(exposed) if exposed else 0.0,
        "bytes_sent": math.fsum(bytes_sent(run)),
    }
    numbers |= {} if loss is None else {"loss": loss}
    return numbers | ({"staleness": math.fsum(late) / len(late)} if late else {})


def readable(seconds: float) -> str:
    """A time for people: ``readable(0.0123) == "12.3 ms"``."""
    if abs(seconds) >= 1000:
        return f"{seconds:,.0f} s"
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if abs(seconds) >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds / 1e-9:.4g} ns" if seconds else "0 s"


# ---------------------------------------------------------------- helpers


def _by_rank(run: Run, table: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of each rank, ranks without rows included, from rows sorted by rank."""
    import numpy as np

    edges = np.searchsorted(table[:, RANK], np.arange(run.ranks + 1))
    return (table[first:last] for first, last in pairwise(edges))


def _covered(start: np.ndarray, end: np.ndarray) -> float:
    """The length of a union of intervals sorted by start: each adds what lies beyond all ends before it."""
    import numpy as np

    if not len(start):
        return 0.0
    reached = np.concatenate((start[:1], np.maximum.accumulate(end)[:-1]))
    return float(np.maximum(0.0, end - np.maximum(start, reached)).sum())


def _mean(values: list[tuple[int, float]]) -> float:
    """The mean of (samples, mean over them); a plain one where these samples are none."""
    total = sum(size for size, _ in values)
    if not total:
        return math.fsum(value for _, value in values) / len(values)
    return math.fsum(size * value for size, value in values) / total


def _slices(run: Run) -> dict[int, int]:
    """How many samples of a batch each worker takes."""
    count = len(run.workers)
    even = [end - start for start, end in (bounds(run.batch, index, count) for index in range(count))]
    return dict(zip(run.workers, run.slices or even))


def _loss_rows(run: Run) -> dict[tuple[int, int], LossRow]:
    """For each (rank, step) the sum of its losses, with the time and version of the last."""
    rows: dict[tuple[int, int], LossRow] = {}
    for sample in run.samples:
        if sample.name == "loss":
            before = rows.get((sample.rank, sample.step))
            loss = sample.value + (before.loss if before else 0.0)
            time = max(sample.time, before.time) if before else sample.time
            rows[sample.rank, sample.step] = LossRow(time, sample.rank, sample.version, loss)
    return rows
