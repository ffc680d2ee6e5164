"""Which messages tell something of a client's data: what the layers for secrecy watch."""

from __future__ import annotations

from ...communicating import Send
from ...rank import Rank
from ...values import Named, Value
from .federated import AXIS, UPDATE


def is_update(value: Value) -> bool:
    """Whether a value is what a client reports of its round, or the sum of such reports."""
    return isinstance(value, Named) and value.name == UPDATE.name


def tells(layer: str, me: Rank, send: Send) -> bool:
    """Whether a Send carries a client's report. Raises ValueError when a client sends anything else."""
    if me.share is None:
        return False
    if not is_update(send.value):
        raise ValueError(
            f"{layer} guards what clients report as changes; a client that does {send} would give its model away: use"
            " it over FedAvg, FedProx or SCAFFOLD"
        )
    return True


def require_federation(layer: str, me: Rank) -> None:
    """Raise ValueError where there are no clients."""
    if AXIS not in me.grid:
        raise ValueError(f"{layer} stands over an order with a server and clients, as in stack(FedAvg(), {layer}(…))")
