"""Post-local SGD: data parallelism first, local SGD afterwards.

Averaging gradients while they change fast keeps the quality of small batches, and local steps save communication
once they do not (Lin et al. 2020, arXiv:1808.07217).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ... import checks
from ...program import AllReduce, Instruction, Update
from ...rank import Rank
from ...rewriting import Rewrite
from ...stack import Program, Rules
from ...values import Grads, Params, Value
from ..buckets import BUCKET, check_bucket
from ..data_parallel import DataParallel
from .replicas import Replicas, ends_round


@dataclass(frozen=True)
class PostLocalSGD(Replicas):
    """Average gradients in the first ``start`` steps; then average parameters after every ``period`` steps.

    - ``period``: steps per round, counted from ``start``; the last step of a run ends its last round.
    - ``start``: how many steps are data parallel.
    - ``bucket_bytes``: as in ``DataParallel``, for those steps.
    - ``replicas``: ranks along the axis "data"; None: as many as there are.

    Raises ValueError for a period below 1 or a negative start.

    >>> from simulator import Model, cluster, simulate
    >>> model = Model.of_times(blocks=2, parameters=100)
    >>> simulate(PostLocalSGD(period=4, start=3), model, cluster("ideal", ranks=2), steps=7).bytes_sent
    [1600.0, 1600.0]
    """

    named: ClassVar[tuple[str, ...]] = ("period", "start")
    looks_after: ClassVar[tuple[type[Value], ...]] = (Grads, Params)

    start: int = 100
    bucket_bytes: float = BUCKET
    replicas: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("start", self.start, of="PostLocalSGD, in steps")
        check_bucket(self.bucket_bytes)

    def rules(self, me: Rank) -> Rules:
        together = DataParallel(self.bucket_bytes).rules(me)

        def first(rule: Rewrite) -> Rewrite:
            def choose(instruction: Instruction) -> Program:
                if me.step < self.start:
                    yield from rule(instruction)
                else:
                    yield from self.alone(me, instruction)

            return choose

        return {kind: first(rule) for kind, rule in together.items()}

    def alone(self, me: Rank, instruction: Instruction) -> Program:
        """What replaces an instruction once everybody trains for itself."""
        yield instruction
        if isinstance(instruction, Update) and ends_round(me, self.period, self.start):
            yield AllReduce(instruction.params, over="data")
