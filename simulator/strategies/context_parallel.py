"""Context parallelism: ranks share the tokens of every sample, so that sequences may be long.

What treats every token for itself runs on a rank's own tokens. In attention the keys and values of all tokens pass by
in a ring, while each rank adds up what its own queries find (ring attention: Liu et al. 2023, arXiv:2310.01889). With
causal attention rank i needs only the keys of ranks 0 to i: the last rank works longest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from .. import checks
from ..cutting import Cut
from ..passes import BackwardPart, ForwardPart
from ..program import AllReduce, Backward, BackwardInput, BackwardWeight, Forward
from ..rank import Rank
from ..stack import Layer, Program, Rules
from ..values import Grads, Value
from .buckets import Buckets
from .in_parts import backward_parts, forward_parts, no_halves, recomputed_parts, spec
from .ring_attention import Ring


@dataclass(frozen=True)
class ContextParallel(Layer):
    """Split the tokens of every sample over the axis "context", in equal parts.

    - ``ways``: ranks along the axis; None: as many as there are.

    The second dimension of the data is that of tokens. Every block needs parts, as the tiny GPT's modules have them:
    what is no attention there treats every token for itself. The gradients of ranks add up over the axis.
    """

    axis: ClassVar[str | None] = "context"
    looks_after: ClassVar[tuple[type[Value], ...]] = (Grads,)

    ways: int | None = None

    def __post_init__(self) -> None:
        if self.ways is not None:
            checks.whole("ways", self.ways, least=1)

    @property
    def extent(self) -> int | None:
        return self.ways

    def cut(self, me: Rank, cut: Cut) -> Cut:
        return replace(cut, context=(me.at("context"), me.size("context")))

    def rules(self, me: Rank) -> Rules:
        if me.size("context") == 1:
            return dict.fromkeys((Backward, BackwardPart, BackwardWeight), _same)
        done = Buckets(me, 0)

        def forward(forward: Forward) -> Program:
            for part in forward_parts(me, forward):
                yield from forward_part(part)

        def forward_part(part: ForwardPart) -> Program:
            if spec(me, part).mixes:
                yield from Ring(me, part).forward()
            else:
                yield part

        def backward(backward: Backward) -> Program:
            for again in recomputed_parts(me, backward):
                yield from forward_part(again)
            for part in backward_parts(me, backward):
                yield from backward_part(part)

        def backward_part(part: BackwardPart) -> Program:
            if spec(me, part).mixes:
                yield from Ring(me, part).backward()
            else:
                yield part
            if part.at == 0 and done.complete(part.block) and me.elements(Grads(part.block)):
                yield AllReduce(Grads(part.block), over="context", op="sum")

        return {
            Forward: forward,
            ForwardPart: forward_part,
            Backward: backward,
            BackwardPart: backward_part,
            BackwardInput: no_halves,
            BackwardWeight: no_halves,
        }


def _same(instruction: Backward | BackwardPart | BackwardWeight) -> Program:
    yield instruction
