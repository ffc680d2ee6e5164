"""What all federated orders share: a server, clients with data of their own, and how these split the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from math import ceil
from random import Random
from typing import ClassVar

from ... import checks
from ...program import Compute, Copy, Recv, Reduce, Send, Update
from ...rank import Rank
from ...stack import Order, Program
from ...values import Named, Params, Value, bounds
from ..single import gradient
from .maths import Difference, zeros

AXIS = "federation"
ANCHOR = Named("anchor")
"""The parameters with which a client began its round."""
UPDATE = Named("update")
"""What a client's round changed, as it leaves the client; on the server, the sum of what has arrived."""
ARRIVED = Named("arrived")


@dataclass(frozen=True)
class Federated(Order):
    """Rank 0 is the server, the others are clients. Abstract: give it a ``program``.

    A step is one local step of every client; a round is ``local_steps`` of them, with communication at its ends.
    ``weights`` say how much of every batch is each client's; None: equal parts.
    """

    axis: ClassVar[str | None] = AXIS
    named: ClassVar[tuple[str, ...]] = ("local_steps",)
    local: ClassVar[bool] = True

    local_steps: int = field(default=8, kw_only=True)
    weights: tuple[float, ...] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        checks.whole("local_steps", self.local_steps, least=1)
        if self.weights is not None:
            object.__setattr__(self, "weights", tuple(self.weights))  # a list has no hash
            for weight in self.weights:
                checks.number("weights", weight, above=0, of="the data of a client")

    def check(self, ranks: int, blocks: int) -> None:
        if ranks < 2:
            raise ValueError(f"a server needs at least one client more; got ranks={ranks}")
        if self.weights is not None and len(self.weights) != ranks - 1:
            raise ValueError(
                f"every client has a weight; got {len(self.weights)} weights for {ranks - 1} client(s) and a server"
            )

    def share(self, me: Rank) -> tuple[int, int] | None:
        return None if me.first(AXIS) else (me.at(AXIS) - 1, me.size(AXIS) - 1)

    def slice(self, me: Rank) -> tuple[int, int] | None:
        if self.weights is None or me.share is None:
            return None
        start, end = self.slices(me)[me.share[0]]
        if start == end:
            raise ValueError(
                f"every client needs a sample; of a batch of {me.model.batch}, weights={self.weights} leave none to"
                f" client {me.share[0]}: use a larger batch"
            )
        return start, end

    def slices(self, me: Rank) -> list[tuple[int, int]]:
        """Every client's samples in a global batch: the first, and one past the last."""
        clients, batch = me.size(AXIS) - 1, me.model.batch
        if self.weights is None:
            return [bounds(batch, client, clients) for client in range(clients)]
        ends = [round(batch * part / sum(self.weights)) for part in accumulate(self.weights)]
        return list(zip([0, *ends], ends))

    def fractions(self, me: Rank) -> dict[int, float]:
        """The part of all data that each client has, by its position."""
        slices = self.slices(me)
        if me.model.batch < len(slices):  # only where time alone is simulated
            return {client + 1: 1 / len(slices) for client in range(len(slices))}
        return {client + 1: (end - start) / me.model.batch for client, (start, end) in enumerate(slices)}

    def holds(self, me: Rank) -> Value | None:
        return Params(me.blocks) if me.share is None else None

    def rounds(self, me: Rank) -> int:
        """How many rounds a run has; the last may be shorter."""
        return ceil(me.total / self.local_steps)

    def ends_round(self, me: Rank) -> bool:
        """Whether a client's round ends with this step."""
        return (me.step + 1) % self.local_steps == 0 or me.step == me.total - 1


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
