"""Gradients clipped by the norm of the gradient of the whole model, wherever its parts are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from .. import checks
from ..program import AllReduce, Collective, Compute, ReduceScatter, Send, Update
from ..rank import Rank
from ..rules.clipped import clip_factor, squared_norm
from ..rules.scaled import require_plain_loss
from ..stack import Layer, Program, Rules
from ..values import Chunk, Grads, Named, Replicated, Value, whole

if TYPE_CHECKING:
    from torch import Tensor

SHARED = ("pipeline", "tensor", "expert")
"""Axes along which ranks hold different parts of the model."""
KNOWN = ("data", "context", *SHARED)
NORM = Named("squared norm")


@dataclass(frozen=True)
class GlobalClip(Layer):
    """Make the averaged gradient no longer than ``norm``, before the update: ``g ← g · min(1, norm / (‖g‖ + 1e-6))``.

    ‖g‖ is that of the whole model: ranks that hold different parts of it add their squares, and what several hold
    counts once. It is what ``torch.nn.utils.clip_grad_norm_`` gives a single process (Pascanu et al. 2013,
    arXiv:1211.5063), for data, sharded, pipeline, tensor, context and expert parallelism.

    It stands nearer the instructions than what averages: ``stack(Pipeline("1f1b"), DataParallel(), GlobalClip(1.0))``.
    ``rules.Clipped`` takes the norm of what one rank updates. Raises ValueError where there is no common gradient, as
    between stages whose gradients are late by different numbers of updates, where parts of tensors are sharded once
    more, and where the rule scales losses.

    >>> grid = listing(stack(DataParallel(), GlobalClip(1.0)), 2, Model.of_times(blocks=1))
    >>> grid.columns[0][5:]
    ('Wait', 'Compute squared norm', 'Compute clip to 1', 'Update Params(0)')
    """

    named: ClassVar[tuple[str, ...]] = ("norm",)

    norm: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("norm", self.norm, above=0, of="GlobalClip")

    def rules(self, me: Rank) -> Rules:
        self._require_common(me)
        clip = Clip(self, me)
        return {Update: clip.update, ReduceScatter: clip.scatter, Collective: clip.note, Send: clip.note}

    def _require_common(self, me: Rank) -> None:
        strange = [axis for axis, size in me.grid.items() if axis not in KNOWN and size > 1]
        if strange or me.local:
            where = f"along {strange[0]!r}" if strange else "of workers that learn for themselves"
            raise ValueError(
                f"{self} clips the gradient that all ranks have in common; {where} there is none: use rules.Clipped,"
                " which clips what one rank updates with"
            )
        require_plain_loss(me.rule, str(self), "use rules.Scaled(rules.Clipped(…))")


class Clip:
    """The rules of one rank. What communicates tells which parts of its gradients are complete on this rank."""

    def __init__(self, layer: GlobalClip, me: Rank):
        self.layer, self.me = layer, me
        self.mine: dict[Value, Chunk] = {}
        self.heard = {axis for axis, size in me.grid.items() if size == 1}
        self.done = -1

    def note(self, instruction: Collective | Send) -> Program:
        """Remember along which axes ranks communicate."""
        if isinstance(instruction, Collective) or isinstance(whole(instruction.value), Grads):
            self.heard.add(instruction.over)
        return (yield instruction)

    def scatter(self, collective: ReduceScatter) -> Program:
        """Of what is scattered a part is complete here."""
        value, over = collective.value, collective.over
        if isinstance(whole(value), Grads):
            self.mine[value] = self.me.chunk(value, over)
        return (yield from self.note(collective))

    def update(self, update: Update) -> Program:
        """Before the first update of a step all gradients are clipped."""
        if update.staleness:
            raise ValueError(
                f"{self.layer} clips one gradient of the whole model; {update} takes one that is {update.staleness}"
                " update(s) late, which those of other ranks are not: use rules.Clipped, which clips what one rank"
                " updates with, or a pipeline that is flushed"
            )
        if self.done != self.me.step:
            self.done = self.me.step
            yield from self._clip(update)
        yield update

    def _clip(self, update: Update) -> Program:
        me, parts = self.me, self._parts(update)
        twice = self._twice()
        width = max(4.0, me.width(Grads(me.blocks)))
        yield Compute(SquaredNorm(len(parts)), (*parts, *twice), (NORM,), sizes=(width,))
        for axis in (*SHARED, *(("data",) if self.mine else ())):
            if me.grid.get(axis, 1) > 1:
                yield AllReduce(NORM, over=axis, op="sum")
        yield Compute(Shorten(self.layer.norm, len(parts)), (NORM, *parts), parts)

    def _parts(self, update: Update) -> tuple[Value, ...]:
        """The parts of the averaged gradient that this rank has."""
        if "data" in self.me.grid and "data" not in self.heard:
            raise ValueError(
                f"{self.layer} clips what has been averaged, so it stands after what averages:"
                f" stack(DataParallel(), GlobalClip({self.layer.norm:g})); before {update} nothing was"
            )
        if not self.mine and isinstance(update.params, Chunk):
            raise ValueError(
                f"{self.layer} cannot see which part of the gradient is complete where sharding is written out as"
                f" messages: put it before the layer that does so: stack(Sharded(), {self.layer}, RingAllReduce())"
            )
        if not self.mine:
            return (Grads(self.me.blocks),)
        if self._axes():
            raise ValueError(
                f"{self.layer} cannot tell which numbers of {next(iter(self.mine.values()))} other ranks along"
                f" {self._axes()[0]!r} hold too: use DataParallel in the place of Sharded"
            )
        return tuple(self.mine.values())

    def _axes(self) -> list[str]:
        """Axes along which blocks are split, so that a part of them is held by all."""
        return [axis for axis in ("tensor", "expert") if self.me.grid.get(axis, 1) > 1]

    def _twice(self) -> tuple[Value, ...]:
        """What another rank counts too: all but the first along an axis leave out what all hold."""
        axes = self._axes()
        if len(axes) > 1:
            raise ValueError(f"{self.layer} works with tensor or with expert parallelism; got both: leave one out")
        if not axes or self.me.first(axes[0]):
            return ()
        shared = [Replicated(Grads(block), axes[0]) for block in self.me.blocks]
        return tuple(value for value in shared if self.me.elements(value))


@dataclass(frozen=True)
class SquaredNorm:
    """The squared norm of the first ``count`` tensors together, less that of the others."""

    count: int
    __name__: ClassVar[str] = "squared norm"

    def __call__(self, *tensors: Tensor) -> Tensor:
        """``[1]``."""
        import torch

        squares = torch.stack([squared_norm(tensor) for tensor in tensors])
        return (squares[: self.count].sum() - squares[self.count :].sum()).reshape(1)


@dataclass(frozen=True)
class Shorten:
    """Gradients times what makes the whole of them no longer than ``norm``."""

    norm: float
    count: int

    @property
    def __name__(self) -> str:
        return f"clip to {self.norm:g}"

    def __call__(self, squared: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        """As many tensors as there are parts."""
        factor = clip_factor(squared, self.norm)
        return tuple(part * factor for part in parts)
