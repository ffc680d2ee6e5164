"""Metrics of learning: losses, and how late gradients came."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..run import Run


class LossRow(NamedTuple):
    """The loss of one worker's step in an asynchronous run: its mean over the worker's own slice of the batch.

    ``time`` [s] is when it was known, ``update`` the server version that its parameters had.
    """

    time: float
    worker: int
    update: int
    loss: float


def losses(run: Run) -> list[float] | list[LossRow]:
    """How the loss went; empty where only time was simulated.

    Synchronous: per step, the mean over the samples of all ranks that noted a loss (NaN where none did). Asynchronous:
    a row for every step of every worker, in order of time. The loss of one rank and step is the sum of what it noted,
    one number per microbatch; that is the mean over its slice of the batch.
    """
    rows = _loss_rows(run)
    if run.asynchronous:
        return sorted(rows.values())
    sizes, steps = dict(zip(run.workers, run.shares)), dict[int, list[tuple[int, float]]]()
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


def _mean(values: list[tuple[int, float]]) -> float:
    """The mean of (samples, mean over them); a plain one where these samples are none."""
    total = sum(size for size, _ in values)
    if not total:
        return math.fsum(value for _, value in values) / len(values)
    return math.fsum(size * value for size, value in values) / total


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
