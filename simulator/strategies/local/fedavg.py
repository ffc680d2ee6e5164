"""Federated averaging: clients train on data that stays with them; a server averages what they learned.

Source: McMahan et al. 2017, arXiv:1602.05629. A round moves two copies of the model per client that takes part. Where
clients' data differ, more local steps pull the limit away from the optimum (client drift;
``theory.fedavg_limit``).
"""

from __future__ import annotations

from dataclasses import dataclass

from ...rank import Rank
from ...stack import Program
from .synchronous import Synchronous, local_rounds, serve_rounds


@dataclass(frozen=True)
class FedAvg(Synchronous):
    """Rank 0 averages the clients' parameters after every ``local_steps`` steps, weighted by their data.

    ``x ← x + server_lr · Σ_k p_k (x_k − x)`` over the clients k of the round, where ``p_k`` is the part of the round's
    data that client k has, and ``x_k`` comes from ``local_steps`` updates with the gradients of its own data alone.

    - ``local_steps``: updates of a client per round; the last round of a run may be shorter.
    - ``clients_per_round``: how many clients take part, drawn anew in every round by ``seed``; None: all. The others
      wait: their step does nothing.
    - ``weights``: how much data each client has: it gets that part of every global batch. None: equal parts.
    - ``server_lr``: how far the server moves.

    What a rule remembers (momentum) stays on its client. Raises ValueError for counts below 1, weights that are not
    positive or not one per client, more clients per round than there are.

    >>> from simulator import Model, cluster, simulate
    >>> model = Model.of_times(blocks=2, parameters=100)
    >>> simulate(FedAvg(local_steps=4), model, cluster("ideal", ranks=3), steps=8).bytes_sent
    [1600.0, 800.0, 800.0]
    """

    def program(self, me: Rank) -> Program:
        return serve_rounds(self, me) if me.share is None else local_rounds(self, me)
