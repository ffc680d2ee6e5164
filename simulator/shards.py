"""Which part of a table of data is whose: by rows, by columns or by blocks."""

from __future__ import annotations

from collections.abc import Sequence

from . import checks
from .values import bounds

KINDS = ("rows", "columns", "blocks")


def shards(shape: Sequence[int], index: int, of: int, by: str = "rows") -> tuple[slice, ...]:
    """Part ``index`` of ``of`` of an array of a shape, as slices with which to index it.

    - ``by``: "rows" shares the first dimension, which is that of samples (horizontal); "columns" the second, that of
      features (vertical); "blocks" both, in a grid whose cells are as square as can be, row by row.

    Parts are almost equal, do not overlap, and together are the whole. Strategies share the rows of a batch by
    themselves; ``TensorParallel(vertical=True)`` shares its columns.

    Raises ValueError for another way, for a part that does not exist, and for fewer dimensions than it takes.

    >>> shards((10, 6), 1, 4), shards((10, 6), 1, 3, by="columns"), shards((8, 8), 2, 4, by="blocks")
    ((slice(2, 5, None),), (slice(None, None, None), slice(2, 4, None)), (slice(4, 8, None), slice(0, 4, None)))
    """
    checks.whole("of", of, least=1)
    if checks.whole("index", index) >= of:
        raise ValueError(f"shards are numbered from 0 to of-1; got index={index}, of={of}")
    if by not in KINDS:
        raise ValueError(f"data are shared by one of {', '.join(map(repr, KINDS))}; got by={by!r}")
    shape = [checks.whole("shape", side) for side in checks.several("shape", shape, "that of an array, such as (8, 4)")]
    if len(shape) < (1 if by == "rows" else 2):
        raise ValueError(f"an array that is shared by {by} has that dimension; got the shape {tuple(shape)}")
    if by == "rows":
        return (slice(*bounds(shape[0], index, of)),)
    rows = 1 if by == "columns" else _rows(shape[0], shape[1], of)
    down, right = divmod(index, of // rows)
    columns = slice(*bounds(shape[1], right, of // rows))
    return (slice(None) if by == "columns" else slice(*bounds(shape[0], down, rows)), columns)


def _rows(height: int, width: int, of: int) -> int:
    """How many rows a grid of ``of`` cells has, so that cells are as square as can be."""
    divisors = [rows for rows in range(1, of + 1) if of % rows == 0]
    return min(divisors, key=lambda rows: abs(height / rows - width * rows / of))
