"""Tensor parallelism: ranks share every block, each with some of its heads, hidden units or letters.

A block is run in parts (Shoeybi et al. 2019, arXiv:1909.08053): where ranks' outputs add up, an all-reduce follows; in
the backward pass one follows where all ranks needed the same input. With ``sequence`` (Korthikanti et al. 2022,
arXiv:2205.05198) what is not split by units is split by tokens, and each all-reduce becomes a reduce-scatter and an
all-gather, of the same bytes together. In the paper a rank keeps its own tokens of what such an all-gather gives, and
gathers the others once more in the backward pass, while it computes; memory counts as there, but this is not sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import ClassVar

from .. import checks
from ..cutting import Cut
from ..passes import BackwardPart, ForwardPart, slope_of
from ..program import AllGather, AllReduce, Backward, BackwardWeight, ReduceScatter
from ..rank import Rank
from ..rewriting import same
from ..stack import Layer, Program, Rules
from ..values import Grads, Replicated, Value
from .buckets import Buckets
from .in_parts import in_parts, spec


@dataclass(frozen=True)
class TensorParallel(Layer):
    """Split units of every block over the axis "tensor".

    - ``sequence``: split tokens too, where units are not split.
    - ``vertical``: each rank loads only those columns (features) of the data that its part of the first block reads;
      that block begins with a Linear.
    - ``ways``: ranks along the axis; None: as many as there are.

    Every block needs parts: the tiny GPT's modules have them, as have Linear layers; see ``Block.parts``. Raises
    ValueError where one has none, or fewer units than there are ranks.

    >>> from simulator import Model, cluster, simulate
    >>> model = Model.of_times(blocks=4, activation_bytes=64.0, batch=8).in_parts(units=8)
    >>> simulate(TensorParallel(), model, cluster("ideal", ranks=2), steps=1).bytes_sent
    [3584.0, 3584.0]
    """

    axis: ClassVar[str | None] = "tensor"
    sized: ClassVar[str | None] = "ways"
    looks_after: ClassVar[tuple[type[Value], ...]] = (Grads,)

    sequence: bool = False
    vertical: bool = field(default=False, kw_only=True)
    ways: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.kind("sequence", self.sequence, bool, "True or False")
        checks.kind("vertical", self.vertical, bool, "True or False")

    def cut(self, me: Rank, cut: Cut) -> Cut:
        tensor = me.at("tensor"), me.size("tensor")
        return replace(cut, tensor=tensor, sequence=self.sequence, vertical=self.vertical)

    def rules(self, me: Rank) -> Rules:
        if me.size("tensor") == 1:
            return {Backward: same, BackwardWeight: same}
        text = Sequence(me) if self.sequence else Whole(me)
        done = Buckets(me, 0)

        def backward_part(part: BackwardPart) -> Program:
            yield from text.backward(part)
            if part.at == 0 and done.complete(part.block) and self.sequence:
                shared = Replicated(Grads(part.block), "tensor")
                if me.elements(shared):
                    yield AllReduce(shared, over="tensor", op="sum")  # each rank saw its own tokens

        return in_parts(me, text.forward, backward_part)


@dataclass(frozen=True)
class Whole:
    """Every rank has all tokens."""

    me: Rank

    def forward(self, part: ForwardPart) -> Program:
        """Add up what ranks computed."""
        yield part
        if spec(self.me, part).sums:
            yield _sum(part)

    def backward(self, part: BackwardPart) -> Program:
        """Add up the gradients of what they all read."""
        yield part
        if spec(self.me, part).shares and not _first(part):
            yield _sum(part)


@dataclass(frozen=True)
class Sequence:
    """Between the parts that are split by units, a rank has some of the tokens."""

    me: Rank

    def forward(self, part: ForwardPart) -> Program:
        """Gather the tokens that all ranks need; of a sum, keep one's own tokens."""
        if spec(self.me, part).shares and not _first(part):
            yield AllGather(part.entering, over="tensor", into=part.entering)
        yield part
        if spec(self.me, part).sums and self._last(part):
            yield AllReduce(part.leaving, over="tensor", op="sum")  # the loss needs every token
        elif spec(self.me, part).sums:
            yield ReduceScatter(part.leaving, over="tensor", op="sum", into=part.leaving)

    def backward(self, part: BackwardPart) -> Program:
        """The same backward: gather where there was a reduce-scatter, and the other way round."""
        slope = slope_of(part.leaving)
        if spec(self.me, part).sums and not self._last(part):
            yield AllGather(slope, over="tensor", into=slope)
        yield part
        if spec(self.me, part).shares and not _first(part):
            entering = slope_of(part.entering)
            yield ReduceScatter(entering, over="tensor", op="sum", into=entering)

    def _last(self, part: ForwardPart | BackwardPart) -> bool:
        """Whether a part gives the last sum of the model, after which every rank has all tokens."""
        if part.block != len(self.me.model.blocks) - 1:
            return False
        rest = self.me.model.blocks[part.block].parts[part.at + 1 :]
        if any(later.adds is not None or later.parameters for later in rest if not later.sums):
            raise ValueError(
                f"with sequence=True the last block ends with a sum over units, as a Linear gives; block {part.block}"
                " goes on with a part that adds or has parameters: use sequence=False"
            )
        return not any(later.sums for later in rest)


@lru_cache(maxsize=2**13)
def _sum(part: ForwardPart | BackwardPart) -> AllReduce:
    """Of what a part gives: outputs forward, slopes backward. Made once for all ranks, steps and readings."""
    given = part.leaving if isinstance(part, ForwardPart) else slope_of(part.entering)
    return AllReduce(given, over="tensor", op="sum")


def _first(part: ForwardPart | BackwardPart) -> bool:
    """Whether a part reads the data themselves, which every rank has and which need no gradient."""
    return part.block == 0 and part.at == 0
