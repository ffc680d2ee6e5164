"""Programs as a grid: a column per rank, a row per step of its program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDEST = 8
"""Ranks shown in a grid as text; there may be more in ``columns``."""


@dataclass(frozen=True)
class Listing:
    """What each rank does, in order. ``str()`` of it is the grid; ``listing[rank]`` a rank's instructions as text.

    ``marks`` are (rank, row) pairs to point at.

    >>> print(Listing((("Load mb0", "Forward 0 mb0"), ("Load mb0",)), marks=((0, 1),)))
      | rank 0           | rank 1
    0 | Load mb0         | Load mb0
    1 | >> Forward 0 mb0 |
    """

    columns: tuple[tuple[str, ...], ...]
    marks: tuple[tuple[int, int], ...] = ()

    def __getitem__(self, rank: int) -> tuple[str, ...]:
        return self.columns[rank]

    def __len__(self) -> int:
        return len(self.columns)

    def __str__(self) -> str:
        shown = self._shown()
        rows = range(max((len(self.columns[rank]) for rank in shown), default=0))
        table = [["", *(f"rank {rank}" for rank in shown)]]
        table += [[str(row), *(self._cell(rank, row) for rank in shown)] for row in rows]
        widths = [max(map(len, column)) for column in zip(*table)]
        lines = [" | ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in table]
        hidden = len(self.columns) - len(shown)
        if hidden > 0:
            lines.append(f"… and {hidden} more ranks")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _shown(self) -> Sequence[int]:
        marked = sorted({rank for rank, _ in self.marks})[:WIDEST]
        others = [rank for rank in range(len(self.columns)) if rank not in marked]
        return sorted([*marked, *others[: WIDEST - len(marked)]])

    def _cell(self, rank: int, row: int) -> str:
        column = self.columns[rank]
        if row >= len(column):
            return ""
        return f"{'>> ' if (rank, row) in self.marks else ''}{column[row]}"
