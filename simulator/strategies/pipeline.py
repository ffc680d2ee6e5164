"""Pipeline parallelism: the blocks are split over ranks, the batch into microbatches that follow each other.

- "naive": one microbatch goes forward through all stages and back before the next enters (plain model parallelism).
- "gpipe": all microbatches forward, then all backward (Huang et al. 2019, arXiv:1811.06965).
- "1f1b": after a warm-up each stage alternates one forward and one backward, so that stage s of p holds at most p-s
  microbatches (Narayanan et al. 2021, arXiv:2104.04473).

With stage times F and B and free communication, gpipe and 1f1b both take (m + p - 1)(F + B) for m microbatches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from .. import checks
from ..program import Backward, Forward, Load, Loss, Recv, Send, Update
from ..rank import Rank
from ..stack import Order, Program
from ..values import Act, ActGrad, Params, bounds

Task = tuple[str, int]
"""("F" or "B", microbatch)."""


def naive(stage: int, stages: int, microbatches: int) -> Iterator[Task]:
    """Each microbatch forward and at once backward."""
    for microbatch in range(microbatches):
        yield "F", microbatch
        yield "B", microbatch


def gpipe(stage: int, stages: int, microbatches: int) -> Iterator[Task]:
    """All forward, then all backward."""
    yield from (("F", microbatch) for microbatch in range(microbatches))
    yield from (("B", microbatch) for microbatch in range(microbatches))


def one_forward_one_backward(stage: int, stages: int, microbatches: int) -> Iterator[Task]:
    """Warm up with as many forwards as stages follow, then alternate, then drain."""
    ahead = min(microbatches, stages - stage - 1)
    yield from (("F", microbatch) for microbatch in range(ahead))
    for microbatch in range(microbatches - ahead):
        yield "F", microbatch + ahead
        yield "B", microbatch
    yield from (("B", microbatch) for microbatch in range(microbatches - ahead, microbatches))


SCHEDULES: dict[str, Callable[[int, int, int], Iterator[Task]]] = {
    "naive": naive,
    "gpipe": gpipe,
    "1f1b": one_forward_one_backward,
}


@dataclass(frozen=True)
class Pipeline(Order):
    """Blocks over ranks, in stages.

    - ``schedule``: "naive", "gpipe" or "1f1b".
    - ``microbatches``: into how many parts the batch is cut.
    - ``stages``: ranks along the axis "pipeline"; None: as many as there are.
    """

    axis: ClassVar[str | None] = "pipeline"
    named: ClassVar[tuple[str, ...]] = ("schedule", "microbatches")

    schedule: str = "1f1b"
    microbatches: int = 4
    stages: int | None = None

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            names = ", ".join(map(repr, SCHEDULES))
            raise ValueError(f"the schedules of a pipeline are {names}; got schedule={self.schedule!r}")
        checks.whole("microbatches", self.microbatches, least=1)
        if self.stages is not None:
            checks.whole("stages", self.stages, least=1)

    @property
    def extent(self) -> int | None:
        return self.stages

    @property
    def pieces(self) -> int:
        return self.microbatches

    def check(self, ranks: int, blocks: int) -> None:
        if blocks < ranks:
            raise ValueError(f"every stage needs a block; got {blocks} block(s) for {ranks} stages: use fewer ranks")

    def blocks(self, me: Rank) -> tuple[int, ...]:
        return tuple(range(*bounds(len(me.model.blocks), me.at("pipeline"), me.size("pipeline"))))

    def program(self, me: Rank) -> Program:
        stage, stages = me.at("pipeline"), me.size("pipeline")
        run = {"F": forward, "B": backward}
        for _ in me.steps():
            for task, microbatch in SCHEDULES[self.schedule](stage, stages, self.microbatches):
                yield from run[task](me, stage, microbatch)
            yield Update(Params(me.blocks))


def forward(me: Rank, stage: int, microbatch: int) -> Program:
    """One microbatch through the blocks of a stage; the first loads it, the last compares it with its targets."""
    first, last = me.blocks[0], me.blocks[-1]
    if me.first("pipeline") or me.last("pipeline"):
        yield Load(microbatch)
    if not me.first("pipeline"):
        yield Recv(Act(first, microbatch), source=stage - 1, over="pipeline")
    for block in me.blocks:
        yield Forward(block, microbatch)
    if me.last("pipeline"):
        yield Loss(last + 1, microbatch)
    else:
        yield Send(Act(last + 1, microbatch), to=stage + 1, over="pipeline")


def backward(me: Rank, stage: int, microbatch: int) -> Program:
    """One microbatch back through the blocks of a stage."""
    first, last = me.blocks[0], me.blocks[-1]
    if not me.last("pipeline"):
        yield Recv(ActGrad(last + 1, microbatch), source=stage + 1, over="pipeline")
    for block in reversed(me.blocks):
        yield Backward(block, microbatch)
    if not me.first("pipeline"):
        yield Send(ActGrad(first, microbatch), to=stage - 1, over="pipeline")
