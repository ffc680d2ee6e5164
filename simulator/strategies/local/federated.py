"""What all federated orders share: a server, clients with data of their own, and how these split the batch.

Those in rounds are in ``synchronous``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import ClassVar

from ... import checks
from ...rank import Rank
from ...stack import Order, Program
from ...values import Named, Params, Value, apportioned, bounds

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
        super().__post_init__()
        checks.whole("local_steps", self.local_steps, least=1)
        if self.weights is not None:
            given = checks.several("weights", self.weights, "a number for each client, as in (3, 1)")
            object.__setattr__(self, "weights", tuple(given))  # a list has no hash
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
        return apportioned(batch, self.weights)

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
class Asynchronous(Federated):
    """Every client goes on as soon as the server has answered it alone. Abstract: give it ``work`` and ``serve``."""

    @property
    def static(self) -> bool:
        return False

    @property
    def asynchronous(self) -> bool:
        return True

    def program(self, me: Rank) -> Program:
        return self.serve(me) if me.share is None else self.work(me)

    def work(self, me: Rank) -> Program:
        """The text of a client."""
        raise NotImplementedError(f"{type(self).__name__} is Asynchronous: give it a method work(self, me)")

    def serve(self, me: Rank) -> Program:
        """The text of the server."""
        raise NotImplementedError(f"{type(self).__name__} is Asynchronous: give it a method serve(self, me)")
