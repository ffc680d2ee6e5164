"""Sharded data parallelism (ZeRO): data parallelism in which no number is kept twice.

Rajbhandari et al. 2020 (arXiv:1910.02054). All three stages give what ``DataParallel`` gives; they differ in memory and
traffic. With Ψ parameters, n ranks and (n-1)/n left out, a rank sends per step

- stage 1, which splits the optimizer's state: 2Ψ (reduce-scatter of gradients, all-gather of parameters);
- stage 2, which splits the gradients too: 2Ψ;
- stage 3, which splits the parameters too: 3Ψ (they are gathered once forward and once backward), as PyTorch's FSDP
  does (Zhao et al. 2023, arXiv:2304.11277).

With m microbatches stage 3 gathers for each of them; gradients are added up whole and reduced once, as under FSDP's
``no_sync``: it then sends (2m + 1)Ψ, and stages 2 and 3 keep as many gradients as stage 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .. import checks
from ..program import (
    AllGather,
    Backward,
    BackwardWeight,
    Free,
    Instruction,
    ReduceScatter,
    Start,
    Update,
    Wait,
)
from ..rank import Rank
from ..stack import Layer, Program, Rules
from ..values import Chunk, Grads, Params, Value
from .buckets import Bucket, Buckets, check_bucket
from .gathered import Gathered
from .starting import alike


@dataclass(frozen=True)
class Sharded(Layer):
    """Data parallelism over the axis "data", with what ``stage`` says split over its ranks.

    - ``stage``: 1 optimizer state; 2 and gradients; 3 and parameters.
    - ``bucket_bytes``: blocks join a bucket until it holds this many bytes; a bucket is what is gathered and reduced at
      once. 0 is a bucket per block.
    - ``prefetch``: how many buckets of parameters are gathered ahead of the one in use (stage 3).
    - ``replicas``: ranks along the axis; None: as many as there are.
    - ``broadcast``: all begin with the parameters of the first, for models whose ranks draw different ones.

    Each rank updates a part of every bucket, so the rule must treat every number for itself: SGD, momentum and Adam do,
    LARS and LAMB do not. Raises ValueError for these, for another stage, and for sizes below 0.

    >>> from simulator import Model, cluster, simulate
    >>> model, ranks = Model.of_times(blocks=5, parameters=100), cluster("ideal", ranks=4)
    >>> [simulate(Sharded(stage), model, ranks, steps=1).bytes_sent[0] for stage in (2, 3)]
    [600.0, 900.0]
    """

    axis: ClassVar[str | None] = "data"
    sized: ClassVar[str | None] = "replicas"
    splits_batch: ClassVar[bool] = True
    looks_after: ClassVar[tuple[type[Value], ...]] = (Grads, Params)
    named: ClassVar[tuple[str, ...]] = ("stage",)

    stage: int = 3
    bucket_bytes: float = 0
    prefetch: int = 1
    replicas: int | None = None
    broadcast: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stage not in (1, 2, 3):
            raise ValueError(
                f"the stages of sharding are 1 (optimizer state), 2 (and gradients), 3 (and parameters);"
                f" got stage={self.stage!r}"
            )
        check_bucket(self.bucket_bytes)
        checks.whole("prefetch", self.prefetch, of="in buckets")

    def holds(self, me: Rank, held: tuple[Value, ...]) -> tuple[Value, ...]:
        if self.stage < 3 or not held:  # who learns nothing has nothing
            return held
        return tuple(mine(me, Params(bucket)) for bucket in Buckets(me, self.bucket_bytes).all)

    def rules(self, me: Rank) -> Rules:
        if me.rule is not None and not me.rule.elementwise:
            raise ValueError(
                f"a sharded strategy updates parts of tensors; {me.rule} needs whole ones: use DataParallel, or a rule"
                " that treats every number for itself, such as SGD, Momentum or Adam"
            )
        buckets = Buckets(me, self.bucket_bytes)
        filled = [bucket for bucket in buckets.all if me.elements(Params(bucket))]

        def reduce(backward: Backward | BackwardWeight) -> Program:
            yield backward
            bucket = buckets.complete(backward.block)
            if bucket in filled:
                yield Start(self.reduction(me, bucket), on="data")

        def update(update: Update) -> Program:
            if update.since is not None:
                raise ValueError(f"a sharded strategy keeps no older parameters whole; got {update} with since=…")
            yield Wait()
            for bucket in filled:
                yield Update(mine(me, Params(bucket)), staleness=update.staleness)
                if self.stage == 1:
                    yield Free(Grads(bucket))
                if self.stage < 3:
                    yield AllGather(Params(bucket), over="data")

        rules: Rules = {Backward: reduce, BackwardWeight: reduce, Update: update}
        if self.stage == 3:
            rules = {**rules, **Gathered(me, buckets, filled, self.prefetch, reduce).rules()}
        return alike(me, filled, rules) if self.broadcast else rules

    def reduction(self, me: Rank, bucket: Bucket) -> tuple[Instruction, ...]:
        """What happens to a bucket of gradients that is complete."""
        scatter = ReduceScatter(Grads(bucket), over="data")
        return (scatter,) if self.stage == 1 else (scatter, Free(Grads(bucket), keep=mine(me, Grads(bucket))))


def mine(me: Rank, value: Params | Grads) -> Chunk:
    """This rank's part of a bucket."""
    return me.chunk(value, "data")
