"""Predictions of many rows at once, on all cores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from .errors import Errors
from .rows import ZERO_SHOT, Knobs, Predicted, Row


class Predictions:
    """Seconds per step of some ``rows``, predicted when they are first asked for."""

    def __init__(self, rows: Iterable[Row]):
        self.rows = tuple(rows)
        self.known: dict[tuple[int, Knobs], float] = {}

    def of(self, knobs: Knobs = ZERO_SHOT, which: Sequence[int] | None = None) -> list[float]:
        """Of the rows of these numbers, or of all [s]."""
        asked = [(at, knobs) for at in (range(len(self.rows)) if which is None else which)]
        self._predict([one for one in asked if one not in self.known])
        return [self.known[one] for one in asked]

    def errors(self, knobs: Knobs = ZERO_SHOT, which: Sequence[int] | None = None) -> Errors:
        """How wrong they are."""
        rows = self.rows if which is None else [self.rows[at] for at in which]
        return Errors.of(self.of(knobs, which), [row.measured for row in rows])

    def _predict(self, missing: Sequence[tuple[int, Knobs]]) -> None:
        """In processes that begin afresh, so that nothing depends on who asked before; those that take long first.

        What several rows have in common is predicted once.
        """
        if not missing:
            return
        asked = {one: (self.rows[one[0]].setup, one[1]) for one in missing}
        tasks = sorted(dict.fromkeys(asked.values()), key=lambda task: -task[0].work)
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            found = dict(zip(tasks, pool.map(_seconds, tasks, chunksize=1 + len(tasks) // 64)))
        self.known |= {one: found[task] for one, task in asked.items()}


def _seconds(task: tuple[Predicted, Knobs]) -> float:
    setup, knobs = task
    return setup.seconds(knobs)
