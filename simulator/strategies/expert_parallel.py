"""Expert parallelism: every rank has some of the experts of a mixture, and a slice of the batch.

Tokens travel to the ranks of the experts that their gate chose, and back, by two all-to-alls forward and two backward
(Lepikhin et al. 2021, GShard, arXiv:2006.16668; Fedus et al. 2022, Switch, arXiv:2101.03961). How many go where is
known only when it happens. All other parameters are as in data parallelism: their gradients add up over the axis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ..block import EXPERT
from ..cutting import Cut
from ..passes import BackwardPart, ForwardPart, slope_of
from ..program import (
    AllReduce,
    AllToAll,
    Backward,
    BackwardWeight,
    Compute,
    Forward,
    Measure,
)
from ..rank import Rank
from ..rewriting import same
from ..stack import Layer, Program, Rules
from ..values import Grads, Named, Replicated, Value
from .buckets import Buckets
from .in_parts import in_parts, spec

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ExpertParallel(Layer):
    """Split the experts of every block that has some over the axis "expert", and the batch too.

    - ``ways``: ranks along the axis; None: as many as there are.
    - ``measure``: note how uneven the load is, as samples "imbalance": most tokens that leave for one rank over the
      mean.

    Without tensors a model must say how tokens are routed: see ``Part.routing``. Raises ValueError for a model without
    experts, and for fewer experts than ranks.

    >>> from simulator import Model, cluster, simulate
    >>> model = Model.of_times(blocks=4, activation_bytes=64.0, batch=8).in_parts(units=8, experts=4)
    >>> simulate(ExpertParallel(), model, cluster("ideal", ranks=2), steps=1).bytes_sent
    [2048.0, 2048.0]
    """

    axis: ClassVar[str | None] = "expert"
    sized: ClassVar[str | None] = "ways"
    splits_batch: ClassVar[bool] = True
    looks_after: ClassVar[tuple[type[Value], ...]] = (Grads,)

    ways: int | None = None
    measure: bool = True

    def cut(self, me: Rank, cut: Cut) -> Cut:
        if not any(part.experts for block in me.whole_model.blocks for part in block.parts):
            raise ValueError(
                f"expert parallelism splits experts; {me.whole_model.name} has none: use a mixture of experts, such as"
                " problem('tiny-moe'), or DataParallel"
            )
        return replace(cut, expert=(me.at("expert"), me.size("expert")))

    def rules(self, me: Rank) -> Rules:
        if me.size("expert") == 1:
            return dict.fromkeys((Backward, BackwardPart, BackwardWeight), same)
        done = Buckets(me, 0)

        def has_experts(block: int) -> bool:
            return any(part.experts for part in me.model.blocks[block].parts)

        def forward_part(part: ForwardPart) -> Program:
            yield from self.travel(me, part) if spec(me, part).experts else same(part)

        def backward_part(part: BackwardPart) -> Program:
            yield from travel_back(part) if spec(me, part).experts else same(part)
            if part.at == 0:
                yield from summed(part.block)

        def summed(block: int) -> Program:
            shared = Replicated(Grads(block), "expert")
            if done.complete(block) and me.elements(shared):
                yield AllReduce(shared, over="expert", op="sum")

        table = in_parts(me, forward_part, backward_part)

        def forward(forward: Forward) -> Program:
            yield from table[Forward](forward) if has_experts(forward.block) else same(forward)

        def backward(backward: Backward) -> Program:
            if has_experts(backward.block):
                yield from table[Backward](backward)
            else:
                yield backward
                yield from summed(backward.block)

        return {**table, Forward: forward, Backward: backward}

    def travel(self, me: Rank, part: ForwardPart) -> Program:
        """Tokens go to their experts; what these make of them comes back."""
        there, back = _counts(part)
        experts = sum(count for p in me.whole_model.blocks[part.block].parts if p.experts for count, _ in p.units[:1])
        destinations = Destinations(experts, me.size("expert"))
        yield Compute(destinations, (part.entering,), (there,), sizes=(8 * me.size("expert"),))
        if self.measure:
            yield Measure("imbalance", imbalance, (there,))
        yield AllToAll(part.entering, over="expert", counts=there, into=part.entering, arrived=back)
        yield part
        yield AllToAll(part.leaving, over="expert", counts=back, into=part.leaving, arrived=there)


def travel_back(part: BackwardPart) -> Program:
    """The same way for gradients, from the last to the first."""
    there, back = _counts(part)
    leaving, entering = slope_of(part.leaving), slope_of(part.entering)
    yield AllToAll(leaving, over="expert", counts=there, into=leaving, arrived=back)
    yield part
    yield AllToAll(entering, over="expert", counts=back, into=entering, arrived=there)


def _counts(part: ForwardPart | BackwardPart) -> tuple[Named, Named]:
    """How many tokens leave for each rank, and how many come from each."""
    name = f"{part.block}.{part.at}"
    return Named(f"tokens to experts of {name}", part.microbatch), Named(f"tokens from {name}", part.microbatch)


@dataclass(frozen=True)
class Destinations:
    """How many rows go to each rank, from rows whose column ``EXPERT`` says which expert they want."""

    experts: int
    ranks: int

    @property
    def __name__(self) -> str:
        return "destinations"

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """``[choices, columns]``, sorted by expert, to whole numbers ``[ranks]``."""
        import torch

        bounds_of = [(rank + 1) * self.experts // self.ranks for rank in range(self.ranks)]
        owner = torch.bucketize(rows[:, EXPERT].round().long(), torch.tensor(bounds_of, device=rows.device), right=True)
        return torch.bincount(owner, minlength=self.ranks)


def imbalance(counts: torch.Tensor) -> float:
    """The most tokens that leave for one rank over the mean."""
    return float(counts.max() / counts.double().mean())
