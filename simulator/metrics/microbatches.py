"""How many microbatches a rank holds at once: the activations that its backward passes still need."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..spans import END, LABEL, START, STEP
from .rows import each_rank

if TYPE_CHECKING:
    import numpy as np

    from ..run import Run

BLOCKWISE = re.compile(r"(Forward|Backward|BackwardWeight)(?:Part)? (\d+)(?:\.0)? mb(\d+)\b")
"""What begins to hold a microbatch in a block, and what ends it. A BackwardInput does not."""

Visit = tuple[str, int, int, int]
"""(type, block, microbatch, step)."""


def in_flight(run: Run) -> list[float]:
    """Most microbatches that each rank held at once between their forward and the end of their backward.

    A microbatch counts for the share of the rank's blocks that hold it, so that numbers are whole unless a rank has
    several chunks of the model. p ranks and m microbatches: GPipe m everywhere, 1F1B min(m, p-r) on rank r,
    interleaved with v chunks (2(p-r-1) + (v-1)p + 1)/v, zero-bubble schedules p (H1, ZB-V) and 2p-1 (H2).

    Sources: Narayanan et al. 2021 (arXiv:2104.04473), section 2.2; Qi et al. 2023 (arXiv:2401.10241).
    """
    import numpy as np

    known = _known(run)
    table = run.spans.table()
    table = table[np.isin(table[:, LABEL], list(known))]
    table = table[np.lexsort((table[:, END], table[:, START]))]
    return each_rank(run, table, lambda rows: _most_held(_visits(rows, known)))


def _known(run: Run) -> dict[int, tuple[str, int, int]]:
    """Labels of spans that visit a block: their type, block and microbatch."""
    parts = [BLOCKWISE.match(label) for label in run.spans.labels]
    return {i: (part[1], int(part[2]), int(part[3])) for i, part in enumerate(parts) if part}


def _visits(rows: np.ndarray, known: dict[int, tuple[str, int, int]]) -> list[Visit]:
    """The visits of one rank in order of start, of end, of recording."""
    labels, steps = rows[:, LABEL].astype(int).tolist(), rows[:, STEP].astype(int).tolist()
    return [(*known[label], step) for label, step in zip(labels, steps, strict=True)]


def _most_held(visits: list[Visit]) -> float:
    """Most (block, microbatch) pairs held at once, per block."""
    blocks = {block for what, block, _, _ in visits if what == "Forward"}
    held: set[tuple[int, int, int]] = set()
    most = 0
    for what, *visit in visits:
        if visit[0] in blocks:
            (held.add if what == "Forward" else held.discard)((visit[0], visit[1], visit[2]))
            most = max(most, len(held))
    whole, rest = divmod(most, max(1, len(blocks)))
    return most / len(blocks) if rest else whole
