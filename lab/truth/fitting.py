"""Calibration: which knobs predict some rows best, and how well they predict others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from .errors import Errors
from .predicting import Predictions
from .rows import Knobs


@dataclass(frozen=True)
class Fit:
    """What was fitted on ``fitted`` rows, and how wrong it is on others. ``tested`` says which these are."""

    tested: str
    fitted: int
    knobs: Knobs
    errors: Errors


def fit(predictions: Predictions, knobs: Sequence[Knobs], on: Sequence[int], off: Sequence[int], tested: str) -> Fit:
    """The knobs of least mean error on the rows ``on``, and their errors on the rows ``off``."""
    best = min(knobs, key=lambda one: predictions.errors(one, on).mean)
    return Fit(tested, len(on), best, predictions.errors(best, off))


def parts(predictions: Predictions, knobs: Sequence[Knobs], every: int = 2, seed: int = 0) -> Fit:
    """Fitted on one of ``every`` so many rows and tested on the rest; chance says which rows these are."""
    order = list(range(len(predictions.rows)))
    Random(seed).shuffle(order)
    on = order[::every]
    return fit(predictions, knobs, sorted(on), sorted(set(order) - set(on)), "the rest")


def leave_one_out(predictions: Predictions, knobs: Sequence[Knobs], every: int = 2, seed: int = 0) -> Iterator[Fit]:
    """Fitted on the same rows but those of one model, and tested on all of that model; once for each model."""
    order = list(range(len(predictions.rows)))
    Random(seed).shuffle(order)
    names = [row.model for row in predictions.rows]
    for model in dict.fromkeys(names):
        on = [at for at in sorted(order[::every]) if names[at] != model]
        yield fit(predictions, knobs, on, [at for at, name in enumerate(names) if name == model], model)
