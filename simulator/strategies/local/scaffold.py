"""SCAFFOLD: federated averaging whose clients correct their gradients by how theirs differ from everybody's.

Source: Karimireddy et al. 2020, arXiv:1910.06378, with the second way to renew control variates.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...program import Compute, Copy, Recv, Reduce, Send, Update
from ...rank import Rank
from ...rules.scaled import require_plain_loss
from ...stack import Program
from ...values import Grads, Named, Params
from ..single import gradient
from .federated import ANCHOR, AXIS, UPDATE
from .maths import Difference, zeros
from .synchronous import Synchronous, add_up, weight

OWN = Named("control", 0)
"""A client's own control variate: its mean gradient in the last round in which it took part."""
COMMON = Named("control", 1)
"""That of all clients, weighted by their data."""
SLOPES = Named("slopes")
CHANGE = Named("update", 1)
"""By how much a client's control variate changed."""


@dataclass(frozen=True)
class SCAFFOLD(Synchronous):
    """As ``FedAvg``, but client k steps along ``g − c_k + c``: drift cancels, and the limit is the optimum.

    ``c_k`` becomes the mean of the client's gradients over a round, which for plain gradient descent is the paper's
    ``c_k − c + (x − x_k) / (K lr)``; ``c`` moves by ``Σ_k p_k Δc_k``, where ``p_k`` is the client's part of all data.
    Clients keep their ``c_k`` from round to round, and messages are twice as large as those of ``FedAvg``, whose knobs
    it shares and whose errors it raises.

    >>> from simulator import Model, cluster, simulate
    >>> model = Model.of_times(blocks=2, parameters=100)
    >>> simulate(SCAFFOLD(local_steps=4), model, cluster("ideal", ranks=3), steps=8).bytes_sent
    [3200.0, 1600.0, 1600.0]
    """

    def program(self, me: Rank) -> Program:
        return self.serve(me) if me.share is None else self.work(me)

    def work(self, me: Rank) -> Program:
        """A client: as in ``FedAvg``, with controls beside the parameters."""
        params = Params(me.blocks)
        require_plain_loss(me.rule, "SCAFFOLD")
        if not me.made:
            yield Compute(zeros, (params,), (OWN,))
            yield Compute(zeros, (params,), (COMMON,))
        for number in self.my_rounds(me):
            if me.step % self.local_steps == 0:
                yield Recv(params, source=0, over=AXIS)
                yield Recv(COMMON, source=0, over=AXIS)
                yield Copy(params, ANCHOR)
                yield Compute(zeros, (params,), (SLOPES,))
            yield from gradient(me)
            yield from self.correct(me)
            yield Update(params)
            if self.ends_round(me):
                yield from self.report(me, number)

    def correct(self, me: Rank) -> Program:
        """Note the gradient for the next control variate; then take off mine and add everybody's."""
        steps = min(self.local_steps, me.total - me.step // self.local_steps * self.local_steps)
        grads = Grads(me.blocks)
        yield Reduce(SLOPES, grads, scale=1 / steps)
        yield Reduce(grads, OWN, scale=-1.0)
        yield Reduce(grads, COMMON)

    def report(self, me: Rank, number: int) -> Program:
        """Tell by how much parameters and control variate changed, each with its weight."""
        yield Compute(Difference(weight(self, me)), (Params(me.blocks), ANCHOR), (UPDATE,))
        yield Compute(Difference(self.fractions(me)[me.at(AXIS)]), (SLOPES, OWN), (CHANGE,))
        yield Copy(SLOPES, OWN)
        for update in (UPDATE, CHANGE):
            yield Send(update, to=0, over=AXIS, version=number)

    def serve(self, me: Rank) -> Program:
        """The server: as in ``FedAvg``, with the common control variate beside the parameters."""
        params = Params(me.blocks)
        if not me.made:
            yield Compute(zeros, (params,), (COMMON,))
        for number in me.steps(self.rounds(me)):
            cohort = self.cohort(me, number)
            for value in (params, COMMON):
                for client in cohort:
                    yield Send(value, to=client, over=AXIS, version=number)
            yield from add_up(params, cohort, UPDATE)
            yield Reduce(params, UPDATE, scale=self.server_lr)
            yield from add_up(params, cohort, CHANGE)
            yield Reduce(COMMON, CHANGE)
