"""Secure aggregation: the server learns the sum of the clients' updates, and nothing of any one of them.

Every two clients of a round share a mask, which one adds and the other takes off: in the sum all masks cancel. Numbers
are whole, and sums wrap around, so that a masked update is uniform noise whatever it hides.

Source: Bonawitz et al. 2017, doi:10.1145/3133956.3133982. Their clients agree on masks by Diffie and Hellman's exchange
and share secrets, so that the masks of clients that drop out can be taken off; here masks come from one seed, and
all clients of a round stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ... import checks
from ...program import Compute, Reduce, Send
from ...rank import Rank
from ...stack import Layer, Program, Rules
from .federated import AXIS
from .guarding import is_update, require_federation, tells
from .maths import zeros

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Encoded:
    """Whole numbers in units of ``2^−bits``, as wide as the numbers they stand for."""

    __name__: ClassVar[str] = "encode"
    bits: int
    clients: int = 1

    def __call__(self, update: Tensor) -> Tensor:
        """Numbers of 32 or 64 bits as integers of 32 or 64. Raises ValueError where a sum would wrap around."""
        import torch

        width = 8 * update.element_size()
        most = 2.0 ** (width - 1 - self.bits) / self.clients
        if update.numel() and not float(update.abs().max()) < most:
            raise ValueError(
                f"SecureAggregation: updates stay below {most:.4g}, or the sum of {self.clients} clients wraps around;"
                f" got {float(update.abs().max()):.4g}: use fewer bits than {self.bits}, or clip"
            )
        wide = torch.round(update.to(torch.float64) * 2.0**self.bits)
        return wide.to(torch.int64 if width == 64 else torch.int32)


@dataclass(frozen=True)
class Masked:
    """An encoded update with the masks that client ``me`` of a ``cohort`` shares with each of the others."""

    __name__: ClassVar[str] = "mask"
    encoded: Encoded
    me: int
    cohort: tuple[int, ...]
    key: tuple[int, ...]

    def __call__(self, update: Tensor) -> Tensor:
        """Integers, uniform over their whole range."""
        masked = self.encoded(update)
        for other in self.cohort:
            if other > self.me:
                masked = masked + self.mask(masked, self.me, other)
            elif other < self.me:
                masked = masked - self.mask(masked, other, self.me)
        return masked

    def mask(self, like: Tensor, first: int, second: int) -> Tensor:
        """What two clients share."""
        import torch

        from ...problems.draws import generator

        draws = torch.empty(like.shape, dtype=torch.int64)
        draws.random_(-(2**63), None, generator=generator(*self.key, first, second))
        return draws.to(like.device, like.dtype)  # of 64 random bits, the lower 32 are as random


def add_integers(total: Tensor, arrived: Tensor) -> Tensor:
    """Their sum; it wraps around."""
    return total + arrived


@dataclass(frozen=True)
class Decoded:
    """Numbers from whole numbers in units of ``2^−bits``."""

    __name__: ClassVar[str] = "decode"
    bits: int

    def __call__(self, total: Tensor) -> Tensor:
        """Integers of 32 or 64 bits as numbers of 32 or 64."""
        import torch

        numbers = total.to(torch.float64) * 2.0**-self.bits
        return numbers if total.dtype == torch.int64 else numbers.to(torch.float32)


@dataclass(frozen=True)
class SecureAggregation(Layer):
    """Mask what each client sends, so that only the sum over the clients of a round can be read.

    Client i sends ``round(2^bits u_i) + Σ_{j>i} m_ij − Σ_{j<i} m_ji`` modulo ``2^width``, with masks ``m_ij`` uniform
    over all integers of the width of the numbers; the sum of all is ``Σ u_i``, rounded to ``2^−bits`` per client.

    - ``bits``: binary places that are kept; None: 40 for numbers of 64 bits, 20 for those of 32.
    - ``seed``: of the masks, which also depend on the round, the message and the two clients.

    Messages are as large as without it. It stands over ``FedAvg``, ``FedProx`` or ``SCAFFOLD``; asynchronous servers
    use each message alone. Raises ValueError elsewhere, for rounds of one client, and for updates so large that the
    sum would wrap around.

    >>> from simulator import FedAvg, listing, stack
    >>> listing(stack(FedAvg(local_steps=1), SecureAggregation()), ranks=3)[1][-2:]
    ('Compute mask', 'Send update[0] to federation 0')
    """

    bits: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("seed", self.seed, of="SecureAggregation")
        if self.bits is not None and checks.whole("bits", self.bits, of="SecureAggregation") > 52:
            raise ValueError(f"SecureAggregation: numbers have at most 52 binary places; got bits={self.bits}")

    def rules(self, me: Rank) -> Rules:
        require_federation("SecureAggregation", me)
        bits = (40 if me.model.parameter_bytes == 8 else 20) if self.bits is None else self.bits

        def send(send: Send) -> Program:
            if tells("SecureAggregation", me, send):
                cohort = self.cohort(me)
                key = (self.seed, me.memory["round"], getattr(send.value, "key", 0))
                mask = Masked(Encoded(bits, len(cohort)), me.at(AXIS), cohort, key)
                yield Compute(mask, (send.value,), (send.value,))
            yield send

        def begin(compute: Compute) -> Program:
            yield compute
            if me.share is None and compute.function is zeros and is_update(compute.writes[0]):
                yield Compute(Encoded(bits), compute.writes, compute.writes)

        def add(reduce: Reduce) -> Program:
            if is_update(reduce.target):
                yield Compute(add_integers, (reduce.target, reduce.source), (reduce.target,))
                return
            if is_update(reduce.source):
                yield Compute(Decoded(bits), (reduce.source,), (reduce.source,))
            yield reduce

        return {Send: send, Compute: begin, Reduce: add}

    def cohort(self, me: Rank) -> tuple[int, ...]:
        """The clients of the round. Raises ValueError where nobody says who they are, or there is but one."""
        cohort = me.memory.get("cohort", ())
        if len(cohort) < 2:
            who = "a round of one client is its update" if cohort else "an asynchronous server reads every update alone"
            raise ValueError(
                f"SecureAggregation hides an update in the sum of several, and {who}: use it over FedAvg, FedProx or"
                f" SCAFFOLD with at least two clients per round; got {len(cohort)} on rank {me.rank}"
            )
        return tuple(cohort)
