"""FedProx: federated averaging with a proximal term: a spring ties every client to the parameters it began with.

Source: Li et al. 2020, arXiv:1812.06127.
"""

from __future__ import annotations

from dataclasses import dataclass

from ... import checks
from ...program import Reduce
from ...rank import Rank
from ...rules.scaled import require_plain_loss
from ...stack import Program
from ...values import Grads, Params, Value
from .federated import ANCHOR
from .synchronous import Synchronous, local_rounds, serve_rounds


@dataclass(frozen=True)
class FedProx(Synchronous):
    """As ``FedAvg``, but each client minimises ``f_k(x) + ½ mu ‖x − anchor‖²``: mu (x − anchor) joins its gradients.

    - ``mu``: the weight of this proximal term; with 0 it is ``FedAvg``, whose other knobs it shares.

    Clients with few data or large curvature drift less, at the price of slower rounds; the limit goes to the optimum
    as mu grows (``theory.fedprox_limit``). Raises ValueError for a negative mu, and as ``FedAvg`` does.

    >>> FedProx(0.1, local_steps=20, clients_per_round=10)
    FedProx(local_steps=20, clients_per_round=10, mu=0.1)
    """

    mu: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("mu", self.mu, least=0, of="FedProx")

    def program(self, me: Rank) -> Program:
        require_plain_loss(me.rule, "FedProx")
        if me.share is None:
            return serve_rounds(self, me)
        return local_rounds(self, me, lambda: spring(me, self.mu, ANCHOR))


def spring(me: Rank, mu: float, anchor: Value) -> Program:
    """Add ``mu · (x − anchor)`` to the gradients."""
    yield Reduce(Grads(me.blocks), Params(me.blocks), scale=mu)
    yield Reduce(Grads(me.blocks), anchor, scale=-mu)
