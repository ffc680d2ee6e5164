"""Local SGD: every replica trains for itself, and now and then all take the mean of their parameters.

A step without communication takes no longer than a single process's; one step in ``period`` pays for an all-reduce of
the parameters, so traffic is that of data parallelism divided by the period (Stich 2019, arXiv:1805.09767).
"""

from __future__ import annotations

from dataclasses import dataclass

from ...program import AllReduce, Update
from ...rank import Rank
from ...stack import Program, Rules
from .replicas import Replicas, ends_round


@dataclass(frozen=True)
class LocalSGD(Replicas):
    """Update with one's own gradients; average the parameters after every ``period`` steps and after the last.

    ``x_i ← x_i − lr · g_i``, and ``x_i ← mean_j x_j`` at the end of a round. With period 1 and plain gradient descent
    it is data parallelism; so it is with any period where all replicas see the same data.

    - ``period``: steps per round.
    - ``replicas``: ranks along the axis "data"; None: as many as there are.

    Momentum and moments stay where they are: they are not averaged. Raises ValueError for a period below 1.

    >>> from simulator import Model, cluster, simulate
    >>> model = Model.of_times(blocks=2, parameters=100)
    >>> simulate(LocalSGD(period=4), model, cluster("ideal", ranks=2), steps=8).bytes_sent
    [800.0, 800.0]
    """

    replicas: int | None = None

    def rules(self, me: Rank) -> Rules:
        def finish(update: Update) -> Program:
            yield update
            if ends_round(me, self.period):
                yield AllReduce(update.params, over="data")

        return {Update: finish}
