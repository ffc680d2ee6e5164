"""How noisy gradients are, measured for nothing: replicas have gradients over their slices, and their mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..noise_scale import AVERAGED, OWN
from ..program import AllReduce, Collective, Instruction, Measure, ReduceScatter
from ..rank import Rank
from ..rules.clipped import squared_norm
from ..rules.scaled import require_plain_loss
from ..stack import Layer, Program, Rules
from ..values import Grads, Value, whole
from .exchange import own_weight

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class NoiseScale(Layer):
    """Note the squared norms of each replica's own gradient and of the mean of all: ``noise_scale.noise_of(run)``.

    It stands over what averages over "data", and before what compresses. Raises ValueError along with tensor, context
    or expert parallelism, whose ranks hold parts of one gradient. Source: McCandlish et al. 2018, arXiv:1812.06162.

    >>> from simulator import noise_scale
    >>> digits, cluster_of_4 = problem("digits-mlp", dtype="float64"), cluster("ideal", ranks=4)
    >>> run = simulate(stack(DataParallel(), NoiseScale()), digits, cluster_of_4, steps=3)
    >>> noise_scale.averaged(noise_scale.noise_of(run)).noise > 0
    True
    """

    def rules(self, me: Rank) -> Rules:
        require_plain_loss(me.rule, "NoiseScale")
        for axis in ("tensor", "context", "expert"):
            if me.grid.get(axis, 1) > 1:
                raise ValueError(f"{self} needs whole gradients; along {axis!r} ranks hold parts of one: leave it out")

        def reduce(collective: AllReduce | ReduceScatter) -> Program:
            if not _averages(collective):
                return (yield collective)
            yield from around(me, collective)

        return {AllReduce: reduce, ReduceScatter: reduce}


def around(me: Rank, collective: Collective) -> Iterator[Instruction]:
    """The norms before and after."""
    value, n = collective.value, me.size(collective.over)
    yield Measure(OWN, Square(1 / own_weight(me) ** 2), (value,))
    yield collective
    if isinstance(collective, ReduceScatter):  # the parts of n ranks add up to what each would have whole
        value = me.chunk(value, collective.over)
        yield Measure(AVERAGED, Square(float(n)), (value,))
    else:
        yield Measure(AVERAGED, Square(), (value,))


def _averages(collective: AllReduce | ReduceScatter) -> bool:
    value: Value = whole(collective.value)
    return isinstance(value, Grads) and collective.op == "mean" and collective.over == "data"


@dataclass(frozen=True)
class Square:
    """The squared norm, times a factor."""

    factor: float = 1.0
    __name__: ClassVar[str] = "squared norm"

    def __call__(self, gradient: Tensor) -> Tensor:
        """A number."""
        return squared_norm(gradient) * self.factor
