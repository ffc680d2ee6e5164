"""Metrics of what ranks did: the order of their instructions, bytes they sent and bytes they held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..spans import BYTES, END, LABEL, RANK, START, STREAM
from .rows import each_rank

if TYPE_CHECKING:
    from ..run import Run

PEAKS = "peak memory of each rank [B]"
"""The note that a file of a run has of it."""


def peak_memory(run: Run) -> list[float]:
    """Most bytes that each rank's program holds at once, as ``simulator.memory`` counts them.

    Raises ValueError for programs that depend on what their instructions give, and where the program is not known.
    """
    if PEAKS in run.notes:
        return [float(number) for number in run.notes[PEAKS].split()]
    if run.text is None:
        raise ValueError(
            f"memory follows from the program; this run of {run.strategy} does not know its own: use simulator.memory"
        )
    return run.text.peaks()


def unheld(run: Run) -> bool:
    """Whether nobody knows what ranks hold: the program is not known, or not before it runs."""
    return PEAKS not in run.notes and (run.text is None or not run.text.stack.order.static)


def memory_note(run: Run) -> dict[str, str]:
    """What a file keeps of ``peak_memory``; nothing where it cannot be known."""
    if run.text is None or unheld(run):
        return {}
    return {PEAKS: " ".join(map(repr, peak_memory(run)))}


def bytes_sent(run: Run) -> list[float]:
    """Bytes that each rank itself sent: the sum over its spans. What it received counts at the sender."""
    if run.sent:
        return list(run.sent)
    return each_rank(run, run.spans.table(), lambda rows: float(rows[:, BYTES].sum()))


def instructions(run: Run) -> dict[tuple[int, str], list[str]]:
    """Which instructions each (rank, stream) ran, in order of start (of end, then of recording, where starts tie).

    Ranks that were simulated in the place of others stand for these.
    """
    import numpy as np

    table, labels = run.spans.table(), np.array(run.spans.labels, dtype=object)
    table = table[np.lexsort((table[:, END], table[:, START], table[:, STREAM], table[:, RANK]))]
    if not len(table):
        return {}
    edges = np.flatnonzero(np.any(np.diff(table[:, [RANK, STREAM]], axis=0), axis=1)) + 1
    return {
        (int(rows[0, RANK]), run.spans.streams[int(rows[0, STREAM])]): labels[rows[:, LABEL].astype(int)].tolist()
        for rows in np.split(table, edges)
    }
