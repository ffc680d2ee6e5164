"""Load balancing: workers take uneven parts of every batch, the faster ones more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .. import checks
from ..rank import Rank
from ..stack import Layer, Rules
from ..values import apportioned


@dataclass(frozen=True)
class Shares(Layer):
    """Worker i takes ``weights[i] / Σ weights`` of every batch, rounded to whole samples; without it all take as much.

    - ``weights``: one per worker, in the order of their slices of the batch; ``balanced`` gives those with which all
      are done at once.

    It stands anywhere over an order, and changes no gradient: each counts as many samples as it is over, so that the
    mean is that of the batch. An asynchronous worker's gradient counts as much as its samples.

    Raises ValueError where the number of weights is not that of the workers, where a worker or one of its microbatches
    would have no sample, and for workers that learn for themselves.

    >>> from simulator import DataParallel, Model, cluster, simulate, stack
    >>> strategy = stack(DataParallel(), Shares((3, 1)))
    >>> simulate(strategy, Model.of_times().with_batch(16), cluster("ideal", ranks=2), steps=1).slices
    (12, 4)
    """

    named: ClassVar[tuple[str, ...]] = ("weights",)

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        given = checks.several("weights", self.weights, "a number for each worker, as in Shares((3, 1))")
        weights = tuple(checks.number("weights", weight, above=0, of="Shares") for weight in given)
        object.__setattr__(self, "weights", tuple(int(one) if one == int(one) else one for one in weights))
        if not weights:
            raise ValueError("Shares: weights has one for each worker; got none")

    def slice(self, me: Rank) -> tuple[int, int] | None:
        if me.share is None:
            return None
        worker, workers = me.share
        if me.local:
            raise ValueError(
                "Shares balances workers whose gradients are averaged; those that learn for themselves count alike"
                " whatever they learn from: leave Shares out; federated strategies have weights of their own"
            )
        if len(self.weights) != workers:
            raise ValueError(f"Shares has a weight for each of {workers} worker(s); got {len(self.weights)} weights")
        start, end = self.slices(me.model.batch)[worker]
        if end - start < me.microbatches:
            raise ValueError(
                f"every worker and microbatch needs a sample; of a batch of {me.model.batch}, Shares leaves"
                f" {end - start} to worker {worker} with {me.microbatches} microbatch(es): use a larger batch"
            )
        return start, end

    def slices(self, batch: int) -> list[tuple[int, int]]:
        """Every worker's samples of a batch: the first, and one past the last."""
        return apportioned(batch, self.weights)

    def rules(self, me: Rank) -> Rules:
        return {}
