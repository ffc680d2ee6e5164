"""How the gradients of several workers become one.

>>> import torch
>>> rows = torch.tensor([[1.0, 2.0], [2.0, 4.0], [900.0, -900.0]])  # a row for each worker; the last one is broken
>>> Median()(rows).tolist(), TrimmedMean(0.4)(rows).tolist()
([2.0, 2.0], [2.0, 2.0])

A row is a worker's own gradient: the mean over its own samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import checks
from ..rules.clipped import clip_factor, squared_norm

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Aggregation(ABC):
    """A function from the workers' gradients to one. Abstract: use one of the classes below, or write your own."""

    @abstractmethod
    def __call__(self, rows: Tensor) -> Tensor:
        """Of ``[workers, numbers]`` the ``[numbers]`` that all workers go on with."""

    @property
    def gathers(self) -> bool:
        """Whether every worker needs everybody's gradient; otherwise sums are enough, and an all-reduce does it."""
        return True


@dataclass(frozen=True)
class Mean(Aggregation):
    """The mean over all samples of the batch: what a single process computes."""

    def __call__(self, rows: Tensor) -> Tensor:
        """The mean of rows, which are weighted already where slices of the batch are uneven."""
        return rows.mean(0)

    @property
    def gathers(self) -> bool:
        """See ``Aggregation.gathers``."""
        return False


@dataclass(frozen=True)
class WeightedMean(Aggregation):
    """``Σ w_i g_i / Σ w_i``; each worker scales its own gradient, and an all-reduce adds them.

    - ``weights``: one per worker, by their positions along the axis; None: by their samples, which is ``Mean``.
    """

    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.weights is not None:
            given = checks.several("weights", self.weights, "a number for each worker, as in (3, 1)")
            object.__setattr__(self, "weights", tuple(given))
            if sum(checks.number("weights", weight, least=0, of="WeightedMean") for weight in self.weights or ()) <= 0:
                raise ValueError(f"WeightedMean: weights are at least 0, and not all 0; got weights={self.weights}")

    def __call__(self, rows: Tensor) -> Tensor:
        """The weighted mean of rows; a plain one without weights, for rows do not say how many samples they are."""
        if self.weights is None:
            return rows.mean(0)
        shares = rows.new_tensor([self.share(at, len(rows)) for at in range(len(rows))])
        return (shares[:, None] * rows).mean(0)

    def share(self, at: int, workers: int) -> float:
        """By what a worker's gradient is multiplied so that the plain mean of all is the weighted one."""
        if self.weights is None:
            return 1.0
        if len(self.weights) != workers:
            raise ValueError(f"WeightedMean has a weight for each of {workers} workers; got weights={self.weights}")
        return self.weights[at] * workers / sum(self.weights)

    @property
    def gathers(self) -> bool:
        """See ``Aggregation.gathers``."""
        return False


@dataclass(frozen=True)
class ClippedMean(Aggregation):
    """The mean of gradients each of which is first made no longer than ``norm``: nobody can pull further.

    The length is that of a rank's whole gradient (of its own stage, in a pipeline), so nothing is sent before the
    backward pass has ended. An all-reduce adds.
    """

    norm: float = 1.0

    def __post_init__(self) -> None:
        checks.number("norm", self.norm, above=0, of="ClippedMean")

    def __call__(self, rows: Tensor) -> Tensor:
        """The mean of clipped rows."""
        import torch

        return torch.stack([self.clipped(row) for row in rows]).mean(0)

    def clipped(self, gradient: Tensor, weight: float = 1.0) -> Tensor:
        """``weight`` times a gradient of at most ``norm``; given ``weight`` times the gradient."""
        squares: Any = squared_norm(gradient) / weight**2
        return gradient * clip_factor(squares, self.norm)

    @property
    def gathers(self) -> bool:
        """See ``Aggregation.gathers``."""
        return False


@dataclass(frozen=True)
class Maximum(Aggregation):
    """For every number the largest of all workers': the plain maximum, not that of magnitudes. It leans upwards."""

    def __call__(self, rows: Tensor) -> Tensor:
        """The largest of each column."""
        return rows.amax(0)


@dataclass(frozen=True)
class Median(Aggregation):
    """For every number the median; of an even number of workers the mean of the two in the middle.

    Less than half of the workers may send anything at all. Source: Yin et al. 2018, arXiv:1803.01498.
    """

    def __call__(self, rows: Tensor) -> Tensor:
        """The median of each column; NaN counts as the largest."""
        ranked = rows.sort(0).values
        low, high = ranked[(len(rows) - 1) // 2], ranked[len(rows) // 2]
        return low if len(rows) % 2 else low / 2 + high / 2  # halves first: a sum may overflow


@dataclass(frozen=True)
class TrimmedMean(Aggregation):
    """For every number the mean without the ``share`` of workers that are lowest and the ``share`` that are highest.

    Of n workers ``share · n``, rounded down, fall away at each end: with fewer than 1/share workers it is the mean of
    all. Source: Yin et al. 2018, arXiv:1803.01498.
    """

    share: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= checks.number("share", self.share, of="TrimmedMean") < 0.5:
            raise ValueError(f"TrimmedMean: 0 <= share < 0.5 falls away at each end; got share={self.share}")

    def __call__(self, rows: Tensor) -> Tensor:
        """The mean of the middle of each column; NaN counts as the largest."""
        cut = int(self.share * len(rows) + 1e-9)
        return rows.sort(0).values[cut : len(rows) - cut].mean(0)


AGGREGATIONS: dict[str, Aggregation] = {
    "mean": Mean(),
    "weighted": WeightedMean(),
    "max": Maximum(),
    "clipped": ClippedMean(),
    "median": Median(),
    "trimmed": TrimmedMean(),
}
"""By the names that strategies take."""


def aggregation_of(aggregate: object) -> Aggregation:
    """The aggregation of this name, or the one that is given. Raises ValueError for anything else.

    >>> aggregation_of("median")
    Median()
    """
    if isinstance(aggregate, Aggregation):
        return aggregate
    if not isinstance(aggregate, str) or aggregate not in AGGREGATIONS:
        raise ValueError(
            f"gradients are aggregated by {', '.join(map(repr, AGGREGATIONS))}, or by one of simulator.aggregation,"
            f" such as aggregation.TrimmedMean(0.1); got aggregate={aggregate!r}"
        )
    return AGGREGATIONS[aggregate]
