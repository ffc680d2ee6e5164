"""Pipeline parallelism: the blocks are split over ranks, the batch into microbatches that follow each other.

A schedule says what each rank does in which order; ``schedules`` has a file for each:

- "naive": one microbatch at a time (plain model parallelism); "gpipe": all forward, then all backward.
- "1f1b": one forward, one backward; "interleaved": the same with several chunks of the model per rank.
- "zb-h1", "zb-h2", "zbv": backward in two halves, of which the second fills what would be bubbles.
- a user's own order: for each rank a list of tasks such as ("F", 0), see ``Task``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from .. import checks
from ..program import Backward, BackwardInput, BackwardWeight, Forward, Load, Loss, Recv, Send, Update
from ..rank import Rank
from ..stack import Order, Program
from ..values import Act, ActGrad, Params
from .schedules import PLACEMENTS, SCHEDULES, Place, Schedule, Task, checked_split, own, places, require_split
from .schedules.own import plain


@dataclass(frozen=True)
class Pipeline(Order):
    """Blocks over ranks, in stages.

    - ``schedule``: the name of a schedule, or one of your own: for each rank a list of tasks, ("F", microbatch) or
      ("F", microbatch, chunk), of the kinds "F", "B", "I" and "W".
    - ``microbatches``: into how many parts the batch is cut.
    - ``stages``: ranks along the axis "pipeline"; None: as many as there are.
    - ``chunks``: how many chunks of the model a rank has; None: as many as the schedule needs.
    - ``placement``: how the chunks of your own schedule lie: "loop" (round and round) or "v" (there and back).
    - ``split``: blocks of each stage, or chunk, in the order of the model: (6, 2), or what is in proportion to it;
      None: all have as many. ``balanced_stages`` gives those for devices of different speeds.

    Raises ValueError for a schedule that does not exist or leaves something out, and for knobs that do not fit it.

    >>> [f"{task.what}{task.microbatch}" for task in Pipeline("zb-h1", microbatches=2).tasks(at=1, ranks=2)]
    ['F0', 'I0', 'F1', 'I1', 'W0', 'W1']
    """

    axis: ClassVar[str | None] = "pipeline"
    named: ClassVar[tuple[str, ...]] = ("schedule", "microbatches")

    schedule: str | Sequence[Sequence[Sequence[object]]] = "1f1b"
    microbatches: int = 4
    stages: int | None = None
    chunks: int | None = None
    placement: str | None = None
    split: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("microbatches", self.microbatches, least=1)
        if isinstance(self.schedule, str):
            _require_name(self.schedule)
        else:
            object.__setattr__(self, "schedule", plain(self.schedule))
        if self.stages is not None:
            checks.whole("stages", self.stages, least=1)
        if self.placement is not None:
            _require_placement(self.placement, None if not isinstance(self.schedule, str) else self.plan.placement)
        _require_chunks(self.chunks, self.plan, self.schedule)
        object.__setattr__(self, "split", checked_split(self.split))

    @cached_property
    def plan(self) -> Schedule:
        """The schedule itself."""
        if isinstance(self.schedule, str):
            return SCHEDULES[self.schedule]
        return own(self.schedule, self.microbatches, self.placement or "loop")

    @property
    def chunks_each(self) -> int:
        """How many chunks of the model each rank has."""
        return self.plan.chunks if self.chunks is None else self.chunks

    @property
    def extent(self) -> int | None:
        return len(self.schedule) if self.stages is None and not isinstance(self.schedule, str) else self.stages

    @property
    def pieces(self) -> int:
        return self.microbatches

    def check(self, ranks: int, blocks: int) -> None:
        self.plan.check(ranks, self.microbatches)
        require_split(self.split, ranks * self.chunks_each)
        if blocks < ranks * self.chunks_each:
            remedy = "use fewer ranks" if self.chunks_each == 1 else "use fewer ranks or chunks"
            raise ValueError(
                f"every stage needs a block; got {blocks} block(s) for {ranks * self.chunks_each} stages: {remedy}"
            )

    def tasks(self, at: int, ranks: int) -> tuple[Task, ...]:
        """What the rank at position ``at`` of ``ranks`` does in a step, in order."""
        return tuple(self.plan.tasks(at, ranks, self.microbatches, self.chunks_each))

    def blocks(self, me: Rank) -> tuple[int, ...]:
        return tuple(block for place in self.places(me) for block in place.blocks)

    def places(self, me: Rank) -> tuple[Place, ...]:
        """Where each of this rank's chunks stands."""
        at, ranks = me.at("pipeline"), me.size("pipeline")
        return places(at, ranks, self.chunks_each, self.plan.placement, me.model.asides, self.split)

    def program(self, me: Rank) -> Program:
        chunks, run = self.places(me), {"F": forward, "B": backward, "I": backward_input, "W": backward_weight}
        tasks = self.tasks(me.at("pipeline"), me.size("pipeline"))
        step = [one for task in tasks for one in run[task.what](chunks[task.chunk], task.microbatch)]
        for _ in me.steps():
            for instruction in step:  # noqa: UP028 - "yield from" would send the list what its Recvs give
                yield instruction
            yield Update(Params(me.blocks))


def forward(place: Place, microbatch: int) -> Program:
    """One microbatch through the blocks of a chunk; the last one compares it with its targets."""
    first, last = place.blocks[0], place.blocks[-1]
    if place.loads:
        yield Load(microbatch)
    if place.before is not None:
        yield Recv(Act(first, microbatch), source=place.before, over="pipeline")
    for block in place.blocks:
        yield Forward(block, microbatch)
    if place.last:
        yield Loss(last + 1, microbatch)
    if place.after is not None:
        yield Send(Act(last + 1, microbatch), to=place.after, over="pipeline")


def backward(place: Place, microbatch: int, kind: type[Backward] | type[BackwardInput] = Backward) -> Program:
    """One microbatch back through the blocks of a chunk."""
    first, last = place.blocks[0], place.blocks[-1]
    if place.after is not None:
        yield Recv(ActGrad(last + 1, microbatch), source=place.after, over="pipeline")
    for block in reversed(place.blocks):
        yield kind(block, microbatch)
    if place.before is not None:
        yield Send(ActGrad(first, microbatch), to=place.before, over="pipeline")


def backward_input(place: Place, microbatch: int) -> Program:
    """The half of ``backward`` that others wait for."""
    return backward(place, microbatch, BackwardInput)


def backward_weight(place: Place, microbatch: int) -> Program:
    """The half of ``backward`` that only the update waits for."""
    for block in reversed(place.blocks):
        yield BackwardWeight(block, microbatch)


def _require_name(schedule: str) -> None:
    if schedule not in SCHEDULES:
        names = ", ".join(map(repr, SCHEDULES))
        raise ValueError(
            f"the schedules of a pipeline are {names}; got schedule={schedule!r}; one of your own is a list of tasks"
            " for each rank"
        )


def _require_placement(placement: str, own: str | None) -> None:
    """``own`` is what a schedule that has a name is made for."""
    if placement not in (PLACEMENTS if own is None else (own,)):
        raise ValueError(
            f"chunks lie as one of {', '.join(map(repr, PLACEMENTS))}, which a schedule that has a name chooses itself;"
            f" got placement={placement!r}"
        )


def _require_chunks(chunks: int | None, plan: Schedule, schedule: object) -> None:
    if chunks is None:
        return
    if checks.whole("chunks", chunks, least=1) < plan.chunks or (chunks > plan.chunks and not plan.more):
        wanted = f"{plan.chunks} chunk{'s' if plan.chunks > 1 else ''} per rank{' or more' if plan.more else ''}"
        raise ValueError(f"schedule {schedule!r} has {wanted}; got chunks={chunks}")
