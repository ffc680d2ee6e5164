"""A common time for all ranks: each rank's monotonic clock, corrected by its offset from rank 0's."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
import torch.distributed as dist

ROUNDS = 8


@dataclass(frozen=True)
class Clock:
    """Seconds since the run began; ``error`` is by how much ranks may disagree [s]."""

    zero: float = 0.0
    error: float = 0.0

    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.zero


def agree(rank: int, ranks: int) -> Clock:
    """Measure every rank's offset from rank 0 and agree on a zero. Called by all ranks at once.

    Rank 0 asks each rank for its time; the answer of the quickest round is taken to be read half-way (Cristian 1989,
    "Probabilistic clock synchronization"). An offset smaller than its error counts as none: one clock.
    """
    if ranks == 1:
        return Clock(time.monotonic())
    table = torch.zeros(ranks, 2, dtype=torch.float64)
    if rank == 0:
        for other in range(1, ranks):
            table[other] = torch.tensor(min((_ask(other) for _ in range(ROUNDS)), key=lambda answer: answer[1]))
    else:
        _answer()
    dist.barrier()
    start = torch.tensor([time.monotonic()], dtype=torch.float64)
    dist.broadcast(table, 0)
    dist.broadcast(start, 0)
    offset, error = table[rank].tolist()
    two = table[:, 1].topk(2).values  # ranks whose clocks may be wrong in opposite directions
    return Clock(start.item() + (offset if abs(offset) > error else 0.0), float(two.sum()))


def _ask(other: int) -> tuple[float, float]:
    """(offset of a rank's clock, its error)."""
    reading = torch.zeros(1, dtype=torch.float64)
    before = time.monotonic()
    dist.send(reading, other)
    dist.recv(reading, other)
    after = time.monotonic()
    return reading.item() - (before + after) / 2, (after - before) / 2


def _answer() -> None:
    reading = torch.zeros(1, dtype=torch.float64)
    for _ in range(ROUNDS):
        dist.recv(reading, 0)
        reading[0] = time.monotonic()
        dist.send(reading, 0)
