"""What local methods share: how replicas split the batch, when a round ends, how buffers are named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ... import checks
from ...computing import Update
from ...rank import Rank
from ...stack import Layer
from ...values import Chunk, Named, Params, Value, whole


@dataclass(frozen=True)
class Replicas(Layer):
    """Replicas along "data" that learn for themselves, and meet once in ``period`` steps. Abstract: give it ``rules``.

    Its knob ``replicas`` says how many; None: as many as there are. Raises ValueError for a period below 1.
    """

    axis: ClassVar[str | None] = "data"
    sized: ClassVar[str | None] = "replicas"
    splits_batch: ClassVar[bool] = True
    drifts: ClassVar[bool] = True
    named: ClassVar[tuple[str, ...]] = ("period",)
    looks_after: ClassVar[tuple[type[Value], ...]] = (Params,)

    period: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("period", self.period, least=1, of=f"{type(self).__name__}, in steps")


def ends_round(me: Rank, period: int, start: int = 0) -> bool:
    """Whether a round of ``period`` steps ends with this one; the last step of a run ends its last round."""
    done = me.step + 1 - start
    return done > 0 and (done % period == 0 or me.step == me.total - 1)


def kept(name: str, update: Update) -> Named:
    """A buffer beside the parameters that an update changes; a rank may make several updates per step."""
    of = whole(update.params)
    first = of.blocks[0] if isinstance(of, Params) and of.blocks else 0
    part = update.params.index if isinstance(update.params, Chunk) else 0
    return Named(name, first + (part << 32))
