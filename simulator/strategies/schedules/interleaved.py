"""Interleaved 1F1B: each rank has several chunks of the model, so that a pipeline fills and drains in smaller steps.

With v chunks per rank the bubble shrinks to (p-1)(F+B)/v. In return v times as much goes from rank to rank, and rank r
holds (2(p-r-1) + (v-1)p + 1)/v microbatches (Narayanan et al. 2021, arXiv:2104.04473, section 2.2.2).
"""

from __future__ import annotations

from collections.abc import Iterator

from .task import Schedule, Task


def tasks(at: int, ranks: int, microbatches: int, chunks: int) -> Iterator[Task]:
    """As 1F1B, with visits of a microbatch to a chunk in the place of microbatches.

    ``ranks`` microbatches go through a chunk, then the same through the next; backward, the last chunk comes first.
    """
    visits = microbatches * chunks

    def visit(what: str, count: int) -> Task:
        turn, place = divmod(count, ranks * chunks)
        chunk = place // ranks
        return Task(what, turn * ranks + place % ranks, chunk if what == "F" else chunks - 1 - chunk)

    ahead = min(visits, 2 * (ranks - 1 - at) + (chunks - 1) * ranks)
    yield from (visit("F", count) for count in range(ahead))
    for count in range(visits - ahead):
        yield visit("F", count + ahead)
        yield visit("B", count)
    yield from (visit("B", count) for count in range(visits - ahead, visits))


def check(ranks: int, microbatches: int) -> None:
    """The microbatches go round in groups of as many as there are ranks."""
    if microbatches % ranks:
        raise ValueError(
            f"an interleaved pipeline sends its microbatches round in groups of as many as it has ranks; got"
            f" microbatches={microbatches} on {ranks} ranks: use a multiple of {ranks}"
        )


INTERLEAVED = Schedule(tasks, chunks=2, more=True, check=check)
