"""Which rank has which chunk of the model: the chunks go round the ranks, or there and back."""

from __future__ import annotations

from dataclasses import dataclass

from ...values import bounds

PLACEMENTS = ("loop", "v")
"""Round and round, as in interleaved schedules; or there and back, so that each turn stays on one rank."""


@dataclass(frozen=True)
class Place:
    """Where one chunk of a rank stands in the pipeline.

    - ``blocks``: its blocks, ascending.
    - ``before``, ``after``: the ranks (positions along the axis) that have the chunk before and the one after it; None
      where there is none, and where it is the same rank: then nothing is sent.
    - ``last``: it ends with the loss. ``loads``: it fetches inputs, or targets.
    """

    blocks: tuple[int, ...]
    before: int | None
    after: int | None
    last: bool
    loads: bool


def number(at: int, chunk: int, ranks: int, placement: str) -> int:
    """Which chunk of the whole model is chunk ``chunk`` of the rank at a position.

    >>> [number(0, chunk, 4, "loop") for chunk in range(3)], [number(0, chunk, 4, "v") for chunk in range(3)]
    ([0, 4, 8], [0, 7, 8])
    """
    backwards = placement == "v" and chunk % 2
    return chunk * ranks + (ranks - 1 - at if backwards else at)


def owner(number: int, ranks: int, placement: str) -> int:
    """The position of the rank that has a chunk of the whole model."""
    chunk, at = divmod(number, ranks)
    return ranks - 1 - at if placement == "v" and chunk % 2 else at


def places(at: int, ranks: int, chunks: int, placement: str, blocks: int) -> tuple[Place, ...]:
    """The places of the chunks of the rank at a position, for a model of ``blocks``."""
    every = ranks * chunks
    mine = [number(at, chunk, ranks, placement) for chunk in range(chunks)]

    def neighbour(other: int) -> int | None:
        there = owner(other, ranks, placement) if 0 <= other < every else at
        return None if there == at else there

    return tuple(
        Place(
            blocks=tuple(range(*bounds(blocks, one, every))),
            before=neighbour(one - 1),
            after=neighbour(one + 1),
            last=one == every - 1,
            loads=one == 0 or (one == every - 1 and 0 not in mine),
        )
        for one in mine
    )
