"""When a step repeats itself: from one turn of microbatches to the next, every rank does the same, so much later."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..spans import END, LABEL, RANK, START, STREAM, Spans

if TYPE_CHECKING:
    import numpy as np

ALIKE = 1e-9
"""Times agree within so much of a turn."""
LOOK = 1.013
"""How many microbatches' time is looked at before each moment: an odd number, so that nothing begins just there."""
NUMBERED = re.compile(r"\bmb ?(\d+)")


def turn_time(spans: Spans, block: int, last: int, turn: int) -> float | None:
    """Seconds that each further ``turn`` of microbatches takes; None where that is not yet settled.

    - ``block``: with which the last forward visit of a microbatch to the first stage begins.
    - ``last``: the number of the last microbatch. Until its last forward visit begins, nobody can tell whether more
      will follow; a first stage is the first to know.

    Two moments are compared, a turn apart: these beginnings of ``last`` and of ``last - turn``. If all ranks are then
    in the same places of their programs, a turn further on, and in the midst of the same for as long, all that follows
    is the same too, and so are all further turns.
    """
    table = spans.table()
    moments = [_begins(spans, table, block, number) for number in (last - turn, last)]
    if None in moments:
        return None
    before, after = (moment or 0.0 for moment in moments)
    period = after - before
    length = LOOK * period / turn
    (names, times), (later, then) = (
        _pictured(spans, table, moment, length, number) for moment, number in ((before, last - turn), (after, last))
    )
    agree = length <= before and names == later and abs(times - then).max(initial=0.0) <= ALIKE * period
    return period if agree else None


def _begins(spans: Spans, table: np.ndarray, block: int, microbatch: int) -> float | None:
    """When a microbatch first comes to a block."""
    import numpy as np

    form = re.compile(rf"Forward(Part)? {block}(\.\d+)? mb{microbatch}")
    found = [number for number, text in enumerate(spans.labels) if form.fullmatch(text)]
    starts = table[np.isin(table[:, LABEL], found), START]
    return float(starts.min()) if len(starts) else None


def _pictured(
    spans: Spans, table: np.ndarray, moment: float, length: float, microbatch: int
) -> tuple[list[tuple[float, float, str]], np.ndarray]:
    """What is under way in some time before a moment, by rank and stream, as if the microbatch were the first; when."""
    import numpy as np

    rows = table[(table[:, END] > moment - length) & (table[:, START] <= moment + ALIKE * length)]
    rows = rows[np.lexsort((rows[:, STREAM], rows[:, RANK]))]  # stable: else in order of recording
    return list(_named(spans, rows, microbatch)), rows[:, [START, END]] - moment


def _named(spans: Spans, rows: np.ndarray, microbatch: int) -> Iterator[tuple[float, float, str]]:
    for row in rows:
        text = spans.labels[int(row[LABEL])]
        yield row[RANK], row[STREAM], NUMBERED.sub(lambda found: f"mb{int(found[1]) - microbatch}", text)
