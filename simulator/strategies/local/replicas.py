"""What local methods share: how replicas split the batch, when a round ends, how buffers are named."""

from __future__ import annotations

from ... import checks
from ...computing import Update
from ...rank import Rank
from ...values import Chunk, Named, Params, whole

Share = tuple[int, int] | None


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


def check_knobs(of: str, period: int, replicas: int | None) -> None:
    """Raise ValueError unless period and replicas are whole numbers from 1."""
    checks.whole("period", period, least=1, of=f"{of}, in steps")
    if replicas is not None:
        checks.whole("replicas", replicas, least=1, of=of)
