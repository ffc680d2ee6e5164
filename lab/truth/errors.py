"""How wrong predictions are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median


@dataclass(frozen=True)
class Errors:
    """Relative errors, predicted over measured less one: the mean, median and largest of their absolute values.

    ``bias`` is the mean of the errors themselves: positive where predictions are too slow.
    """

    count: int
    mean: float
    median: float
    largest: float
    bias: float

    @classmethod
    def of(cls, predicted: Sequence[float], measured: Sequence[float]) -> Errors:
        """Of times [s], or of anything else that is positive, in the same order.

        >>> Errors.of([1.1, 0.8], [1.0, 1.0]).mean
        0.15000000000000002
        """
        found = errors(predicted, measured)
        sizes = [abs(error) for error in found]
        return cls(len(found), fmean(sizes), median(sizes), max(sizes), fmean(found))


def errors(predicted: Sequence[float], measured: Sequence[float]) -> list[float]:
    """Predicted over measured less one. Raises ValueError where they are none, or not as many."""
    if not predicted or len(predicted) != len(measured):
        raise ValueError(f"every measurement has a prediction; got {len(predicted)} for {len(measured)}")
    return [guess / truth - 1 for guess, truth in zip(predicted, measured)]
