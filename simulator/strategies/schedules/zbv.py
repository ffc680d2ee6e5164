"""ZB-V: two chunks per rank, there and back, so that a rank has both the first and the last of what it waits for.

Rank r of p has the chunks r and 2p-1-r of 2p: the microbatch that turns on the last rank is back on the first when its
loss is known. Where F = b = W and m ≥ 2p-1 no rank idles between its first start and its last end, and none holds more
than p microbatches, as under 1F1B; twice as much goes from rank to rank. Source: Qi et al. 2023 (arXiv:2401.10241),
section 6, and Qi et al. 2024 (arXiv:2405.15362).
"""

from __future__ import annotations

from collections.abc import Iterator

from .task import Schedule, Task


def tasks(at: int, ranks: int, microbatches: int, chunks: int) -> Iterator[Task]:
    """The order for at least 2p-1 microbatches, without the microbatches that are not there."""
    wanted = max(microbatches, 2 * ranks - 1)
    return (task for task in _enough(at, ranks, wanted) if task.microbatch < microbatches)


def _enough(at: int, ranks: int, microbatches: int) -> Iterator[Task]:
    done: dict[tuple[str, int], int] = {}

    def do(text: str) -> Iterator[Task]:
        """Tasks by names such as "I1 W1": each takes the next microbatch of its kind and chunk, if any is left."""
        for name in text.split():
            key = name[0], int(name[1])
            if done.setdefault(key, 0) < microbatches:
                done[key] += 1
                yield Task(key[0], done[key] - 1, key[1])

    def repeat(times: int, text: str) -> Iterator[Task]:
        for _ in range(times):
            yield from do(text)

    yield from repeat(2 * (ranks - at) - 1, "F0")  # until the first microbatch is back
    yield from repeat(at, "F1 F0")
    yield from repeat(ranks - at, "F1 I1 W1")
    yield from repeat(microbatches - ranks, "F0 I0 W0 F1 I1 W1")  # full: one in, one out
    yield from repeat(at, "I0 I1")
    yield from repeat(ranks - at, "I0 W0")
    yield from repeat(microbatches, "W1")
    yield from repeat(microbatches, "W0")


ZBV = Schedule(tasks, chunks=2, placement="v")
