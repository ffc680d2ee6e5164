"""Which rank has which chunk of the model: the chunks go round the ranks, or there and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from ... import checks
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


@lru_cache(maxsize=2**13)
def places(
    at: int, ranks: int, chunks: int, placement: str, asides: tuple[bool, ...], split: tuple[int, ...] | None = None
) -> tuple[Place, ...]:
    """The places of the chunks of the rank at a position; ``asides`` as of a Model, ``split`` as of ``Pipeline``."""
    every = ranks * chunks
    starts = cuts(asides, every) if split is None else [0, *accumulate(allotted(len(asides), split))]
    mine = [number(at, chunk, ranks, placement) for chunk in range(chunks)]

    def neighbour(other: int) -> int | None:
        there = owner(other, ranks, placement) if 0 <= other < every else at
        return None if there == at else there

    return tuple(
        Place(
            blocks=tuple(range(starts[one], starts[one + 1])),
            before=neighbour(one - 1),
            after=neighbour(one + 1),
            last=one == every - 1,
            loads=one == 0 or (one == every - 1 and 0 not in mine),
        )
        for one in mine
    )


def cuts(asides: Sequence[bool], stages: int) -> list[int]:
    """Where each stage begins, and where the last ends: all have as many blocks as the others, or one more.

    Blocks that stand ``aside``, as an embedding and the scores of a language model do, do not count, unless there would
    be too few: so stages have as many layers, as in Megatron (Narayanan et al. 2021, arXiv:2104.04473).

    >>> cuts((True, False, False, False, False, True), 2)
    [0, 3, 6]
    """
    counted = [number for number, aside in enumerate(asides) if not aside]
    if len(counted) < stages:
        counted = list(range(len(asides)))
    inner = [counted[bounds(len(counted), stage, stages)[0]] for stage in range(1, stages)]
    return [0, *inner, len(asides)]


@lru_cache(maxsize=256)
def allotted(blocks: int, split: tuple[int, ...]) -> tuple[int, ...]:
    """So many blocks in proportion to ``split``, at least one each: the numbers themselves where they add up.

    One after another goes to who has least for its number (d'Hondt).

    >>> allotted(8, (5, 2, 1)), allotted(6, (5, 2, 1)), allotted(3, (5, 2, 1))
    ((5, 2, 1), (4, 1, 1), (1, 1, 1))
    """
    found = [1] * len(split)
    for _ in range(blocks - len(split)):
        found[max(range(len(split)), key=lambda at: split[at] / (found[at] + 1))] += 1
    return tuple(found)


def checked_split(split: Sequence[int] | None) -> tuple[int, ...] | None:
    """A split as a user gives it. Raises ValueError for what are no whole numbers of blocks."""
    if split is None:
        return None
    given = checks.several("split", split, "a number of blocks for each stage, as in (6, 2)")
    return tuple(checks.whole("split", many, least=1, of="blocks") for many in given)


def require_split(split: Sequence[int] | None, stages: int) -> None:
    """Raise ValueError unless a split has a number for each stage."""
    if split is not None and len(split) != stages:
        raise ValueError(f"split has a number of blocks for each of {stages} stage(s); got split={tuple(split)}")
