"""GPipe: all microbatches forward, then all backward (Huang et al. 2019, arXiv:1811.06965).

It takes (m + p - 1)(F + B), and every stage holds all m microbatches.
"""

from __future__ import annotations

from collections.abc import Iterator

from .task import Schedule, Task


def tasks(at: int, ranks: int, microbatches: int, chunks: int) -> Iterator[Task]:
    """All forward, then all backward."""
    yield from (Task("F", microbatch) for microbatch in range(microbatches))
    yield from (Task("B", microbatch) for microbatch in range(microbatches))


GPIPE = Schedule(tasks)
