"""Federated orders in rounds: the server waits for all clients that it asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from ... import checks
from ...program import Compute, Copy, Recv, Reduce, Send, Update
from ...rank import Rank
from ...stack import Program
from ...values import Named, Params, Value
from ..single import gradient
from .federated import ANCHOR, ARRIVED, AXIS, UPDATE, Federated
from .maths import Difference, zeros


@dataclass(frozen=True)
class Synchronous(Federated):
    """In every round the server asks some clients and waits for all of them. Abstract: give it a ``program``.

    ``clients_per_round`` are drawn from all with equal chances, by ``seed``; None: all take part.
    """

    clients_per_round: int | None = field(default=None, kw_only=True)
    server_lr: float = field(default=1.0, kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("server_lr", self.server_lr, above=0)
        checks.whole("seed", self.seed, of="of the draw of clients")
        if self.clients_per_round is not None:
            checks.whole("clients_per_round", self.clients_per_round, least=1)

    def check(self, ranks: int, blocks: int) -> None:
        super().check(ranks, blocks)
        if self.clients_per_round is not None and self.clients_per_round > ranks - 1:
            raise ValueError(
                f"no more clients take part than there are, {ranks - 1}; got clients_per_round={self.clients_per_round}"
            )

    def cohort(self, me: Rank, number: int) -> tuple[int, ...]:
        """The positions of the clients that take part in a round, ascending; layers find it in ``me.memory``."""
        clients = range(1, me.size(AXIS))
        if self.clients_per_round is None:
            cohort = tuple(clients)
        else:
            cohort = tuple(sorted(Random(f"{self.seed} {number}").sample(clients, self.clients_per_round)))
        me.memory["round"], me.memory["cohort"] = number, cohort
        return cohort

    def my_rounds(self, me: Rank) -> Iterator[int]:
        """The rounds of the steps in which this client takes part, step by step."""
        for step in me.steps():
            number = step // self.local_steps
            if me.at(AXIS) in self.cohort(me, number):
                yield number


def local_rounds(order: Synchronous, me: Rank, correct: Callable[[], Program] | None = None) -> Program:
    """A client: take the server's parameters, train, report by how much they changed, weighted by the client's data.

    ``correct`` changes the gradients of every step.
    """
    params = Params(me.blocks)
    for number in order.my_rounds(me):
        if me.step % order.local_steps == 0:
            yield Recv(params, source=0, over=AXIS)
            yield Copy(params, ANCHOR)
        yield from gradient(me)
        if correct is not None:
            yield from correct()
        yield Update(params)
        if order.ends_round(me):
            yield Compute(Difference(weight(order, me)), (params, ANCHOR), (UPDATE,))
            yield Send(UPDATE, to=0, over=AXIS, version=number)


def weight(order: Synchronous, me: Rank) -> float:
    """A client's part of the data of its cohort."""
    fractions = order.fractions(me)
    return fractions[me.at(AXIS)] / sum(fractions[client] for client in me.memory["cohort"])


def serve_rounds(order: Synchronous, me: Rank) -> Program:
    """The server: send the parameters to the cohort, add up what its clients report, and move by it."""
    params = Params(me.blocks)
    for number in me.steps(order.rounds(me)):
        cohort = order.cohort(me, number)
        for client in cohort:
            yield Send(params, to=client, over=AXIS, version=number)
        yield from add_up(params, cohort, UPDATE)
        yield Reduce(params, UPDATE, scale=order.server_lr)


def add_up(params: Value, cohort: tuple[int, ...], update: Named) -> Program:
    """The sum of what a cohort reports, under the name of the reports."""
    yield Compute(zeros, (params,), (update,))
    for client in cohort:
        yield Recv(update, source=client, over=AXIS, into=ARRIVED)
        yield Reduce(update, ARRIVED)
