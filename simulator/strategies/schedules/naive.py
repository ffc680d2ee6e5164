"""One microbatch goes forward through all stages and back before the next enters: plain model parallelism.

One stage works at a time: m microbatches take m·p·(F + B), and nobody holds more than one.
"""

from __future__ import annotations

from collections.abc import Iterator

from .task import Schedule, Task


def tasks(at: int, ranks: int, microbatches: int, chunks: int) -> Iterator[Task]:
    """Each microbatch forward and at once backward."""
    for microbatch in range(microbatches):
        yield Task("F", microbatch)
        yield Task("B", microbatch)


NAIVE = Schedule(tasks)
