"""FedAsync: a server mixes in each client's parameters as they come; nobody waits for anybody.

Source: Xie, Koyejo and Gupta 2019, arXiv:1903.03934.
"""

from __future__ import annotations

from dataclasses import dataclass

from ... import checks
from ...program import ANY, Compute, Copy, Record, Recv, Send, Update
from ...rank import Rank
from ...rules.scaled import require_plain_loss
from ...stack import Program
from ...values import Params
from ..single import gradient
from .discount import USUAL, Weight, check_weight
from .federated import ANCHOR, ARRIVED, AXIS, Asynchronous
from .fedprox import spring
from .maths import Mix


@dataclass(frozen=True)
class FedAsync(Asynchronous):
    """``x ← (1 − a) x + a x_k`` with ``a = mixing · weight(staleness)``, whenever a client k has made its local steps.

    The staleness counts the server's updates since the client got its parameters; with N clients always busy its mean
    is N - 1.

    - ``mixing``: what fresh parameters count, above 0 and at most 1.
    - ``weight``: how that falls with staleness: ``ConstantWeight()``, ``PolynomialWeight(power)`` or
      ``HingeWeight(slope, grace)``.
    - ``mu``: the weight of a proximal term, a spring as in ``FedProx``.
    - ``local_steps``, ``weights``: as in ``FedAvg``; the weights say only who has how much data.

    Raises ValueError for a mixing outside 0 … 1, a negative mu, a spring where the rule scales losses, and as
    ``FedAvg`` does.

    >>> FedAsync(0.9, weight=HingeWeight(10, 4), local_steps=5)
    FedAsync(local_steps=5, mixing=0.9, weight=HingeWeight(slope=10, grace=4))
    """

    mixing: float = 0.6
    weight: Weight = USUAL
    mu: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < checks.number("mixing", self.mixing, of="FedAsync") <= 1:
            raise ValueError(f"FedAsync: 0 < mixing <= 1; got mixing={self.mixing}; 0.6 is usual")
        check_weight("FedAsync", self.weight)
        checks.number("mu", self.mu, least=0, of="FedAsync")

    def work(self, me: Rank) -> Program:
        """A client: train, send the parameters, go on with those that come back."""
        params = Params(me.blocks)
        if self.mu:
            require_plain_loss(me.rule, "FedAsync with a spring")
        for step in me.steps():
            if self.mu and step % self.local_steps == 0:
                yield Copy(params, ANCHOR)
            yield from gradient(me)
            if self.mu:
                yield from spring(me, self.mu, ANCHOR)
            yield Update(params)
            if self.ends_round(me):
                yield Send(params, to=0, over=AXIS, version=me.version)
                yield Recv(params, source=0, over=AXIS)

    def serve(self, me: Rank) -> Program:
        """The server: mix in what comes, by how late it is, and answer."""
        params = Params(me.blocks)
        for version in me.steps((me.size(AXIS) - 1) * self.rounds(me)):
            message = yield Recv(params, source=ANY, over=AXIS, into=ARRIVED)
            staleness = version - message.version
            yield Record("staleness", staleness)
            yield Compute(Mix(self.mixing * self.weight(staleness)), (params, ARRIVED), (params,))
            yield Send(params, to=message.source, over=AXIS, version=version + 1)
