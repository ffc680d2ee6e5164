"""1F1B: after a warm-up each stage alternates one forward and one backward (Narayanan et al. 2021, arXiv:2104.04473).

It takes as long as GPipe, (m + p - 1)(F + B), but stage s of p holds at most p - s microbatches.
"""

from __future__ import annotations

from collections.abc import Iterator

from .task import Schedule, Task


def tasks(at: int, ranks: int, microbatches: int, chunks: int) -> Iterator[Task]:
    """Warm up with as many forwards as stages follow, then alternate, then drain."""
    ahead = min(microbatches, ranks - at - 1)
    yield from (Task("F", microbatch) for microbatch in range(ahead))
    for microbatch in range(microbatches - ahead):
        yield Task("F", microbatch + ahead)
        yield Task("B", microbatch)
    yield from (Task("B", microbatch) for microbatch in range(microbatches - ahead, microbatches))


ONE_FORWARD_ONE_BACKWARD = Schedule(tasks)
