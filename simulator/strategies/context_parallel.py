"""Context parallelism: ranks share the tokens of every sample, so that sequences may be long.

What treats every token for itself runs on a rank's own tokens. In attention the keys and values of all tokens pass by
in a ring, while each rank adds up what its own queries find (ring attention: Liu et al. 2023, arXiv:2310.01889). With
causal attention rank i needs only the keys of ranks 0 to i: the last rank works longest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ..cutting import Cut
from ..passes import BackwardPart, ForwardPart
from ..program import AllReduce, Backward, BackwardWeight
from ..rank import Rank
from ..rewriting import same
from ..stack import Layer, Program, Rules
from ..values import Grads, Value
from .buckets import Buckets
from .in_parts import in_parts, spec
from .ring_attention import Ring


@dataclass(frozen=True)
class ContextParallel(Layer):
    """Split the tokens of every sample over the axis "context", in equal parts.

    - ``ways``: ranks along the axis; None: as many as there are.

    The second dimension of the data is that of tokens. Every block needs parts, as the tiny GPT's modules have them:
    what is no attention there treats every token for itself. The gradients of ranks add up over the axis. Raises
    ValueError where tokens do not split evenly.

    >>> from simulator import Model, cluster, simulate
    >>> model = Model.of_times(blocks=4).in_parts(units=8)
    >>> simulate(ContextParallel(), model, cluster("ideal", ranks=2), steps=1).makespan
    6.0
    """

    axis: ClassVar[str | None] = "context"
    sized: ClassVar[str | None] = "ways"
    looks_after: ClassVar[tuple[type[Value], ...]] = (Grads,)

    ways: int | None = None

    def cut(self, me: Rank, cut: Cut) -> Cut:
        return replace(cut, context=(me.at("context"), me.size("context")))

    def rules(self, me: Rank) -> Rules:
        if me.size("context") == 1:
            return dict.fromkeys((Backward, BackwardPart, BackwardWeight), same)
        done = Buckets(me, 0)

        def forward_part(part: ForwardPart) -> Program:
            if spec(me, part).mixes:
                yield from Ring(me, part).forward()
            else:
                yield part

        def backward_part(part: BackwardPart) -> Program:
            if spec(me, part).mixes:
                yield from Ring(me, part).backward()
            else:
                yield part
            if part.at == 0 and done.complete(part.block) and me.elements(Grads(part.block)):
                yield AllReduce(Grads(part.block), over="context", op="sum")

        return in_parts(me, forward_part, backward_part)
