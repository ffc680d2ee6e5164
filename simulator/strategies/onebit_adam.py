"""1-bit Adam: after a warm-up, momentum travels as signs.

Adam is not linear in gradients, so error feedback does not work for it; but once its variance hardly changes it may be
frozen, and then Adam is momentum SGD with a rate for every number, which is linear (Tang et al. 2021,
arXiv:2102.02888).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from .. import checks
from ..compression import ErrorFeedback, Sign
from ..program import Backward, BackwardWeight, Compute, Free, Update, Wait
from ..rank import Rank
from ..rules import Adam
from ..rules.scaled import require_plain_loss
from ..stack import Layer, Program, Rules
from ..values import Grads, Named, Params, Value
from .alike import require_whole
from .buckets import BUCKET, Buckets, check_bucket
from .data_parallel import started
from .encoding import Zeros
from .exchange import Exchange, first_time
from .two_way import TwoWay

if TYPE_CHECKING:
    from torch import Tensor

MOMENTUM, VARIANCE = Named("momentum"), Named("variance")


@dataclass(frozen=True)
class OneBitAdam(Layer):
    """Data parallelism with Adam: all-reduced gradients for ``warmup`` steps, then signs of momentum.

    Warm-up steps are those of ``DataParallel(rule=Adam(…))``. Then ``m_i ← β1 m + (1 − β1) g_i``; the mean of all m_i,
    compressed to one bit per number on both legs with error feedback (see ``two_way``), becomes m, and
    ``x ← x − lr · m̂ / (√v̂ + eps)`` with v̂ as the warm-up left it. Numbers whose gradient was 0 all through it stay.

    - ``warmup``: steps before the variance is frozen, 15 to 25 % of all in the paper.
    - ``lr``, ``betas``, ``eps``: those of ``rules.Adam``; another rule is refused. Signs have one length for all
      numbers, so those of a tiny variance take huge steps: where gradients are rare, as of border pixels, mind ``eps``.
    - ``bucket_bytes``, ``replicas``: as in ``DataParallel``.

    With w the share of the warm-up it sends ``compression.ratios.onebit_adam_ratio(w)`` times fewer bytes than 16-bit
    gradients are.

    >>> print(OneBitAdam(warmup=20))
    OneBitAdam(warmup=20)
    """

    axis: ClassVar[str | None] = "data"
    sized: ClassVar[str | None] = "replicas"
    splits_batch: ClassVar[bool] = True
    looks_after: ClassVar[tuple[type[Value], ...]] = (Grads, Params)
    named: ClassVar[tuple[str, ...]] = ("warmup",)

    warmup: int = 100
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    bucket_bytes: float = BUCKET
    replicas: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("warmup", self.warmup, least=1, of="OneBitAdam, in steps: the variance is learned in them")
        object.__setattr__(self, "betas", Adam(self.lr, self.betas, self.eps).betas)
        check_bucket(self.bucket_bytes)
        if self.rule is not None:
            raise ValueError(f"OneBitAdam is its own rule; got rule={self.rule}; set lr, betas and eps")

    def rules(self, me: Rank) -> Rules:
        require_plain_loss(me.rule, "OneBitAdam")
        require_whole(me, "OneBitAdam")
        buckets, exchange = Buckets(me, self.bucket_bytes), Exchange("data")

        def reduce(backward: Backward | BackwardWeight) -> Program:
            yield backward
            bucket = buckets.complete(backward.block)
            if bucket is not None and me.step < self.warmup:
                yield from started(me, exchange, bucket)

        def update(update: Update) -> Program:
            if update.params != Params(me.blocks):
                raise ValueError(f"OneBitAdam updates all that a rank has at once; got {update}: use another order")
            yield Wait()
            yield from self.learn(me) if me.step < self.warmup else self.go_on(me)
            yield Free(Grads(me.blocks))

        return {Backward: reduce, BackwardWeight: reduce, Update: update}

    def learn(self, me: Rank) -> Program:
        """A step of Adam with averaged gradients."""
        params, grads = Params(me.blocks), Grads(me.blocks)
        if first_time(me, MOMENTUM):
            yield Compute(Zeros(2), (params,), (MOMENTUM, VARIANCE), sizes=(me.bytes(params),) * 2)
        yield Compute(Moments(self.betas), (grads, MOMENTUM, VARIANCE), (MOMENTUM, VARIANCE))
        yield self.descend(me)

    def go_on(self, me: Rank) -> Program:
        """A step with momentum that travels as signs."""
        params, grads = Params(me.blocks), Grads(me.blocks)
        yield Compute(Moments(self.betas), (grads, MOMENTUM), (MOMENTUM,))
        yield from TwoWay(MOMENTUM, me.elements(params), "data", ErrorFeedback(Sign())).program(me)
        yield self.descend(me)

    def descend(self, me: Rank) -> Compute:
        """The update of parameters."""
        params, made = Params(me.blocks), me.step + 1
        correction = (1 - self.betas[0] ** made, 1 - self.betas[1] ** min(made, self.warmup))
        return Compute(Descend(self.lr, self.eps, correction), (params, MOMENTUM, VARIANCE), (params,))


@dataclass(frozen=True)
class Moments:
    """``m ← β1 m + (1 − β1) g``, and where it is given ``v ← β2 v + (1 − β2) g²``."""

    betas: tuple[float, float]
    __name__: ClassVar[str] = "moments"

    def __call__(self, gradient: Tensor, momentum: Tensor, *variance: Tensor) -> tuple[Tensor, ...]:
        """m, and v where it was given."""
        first, second = self.betas
        squares = (second * v + (1 - second) * gradient.square() for v in variance)
        return first * momentum + (1 - first) * gradient, *squares


@dataclass(frozen=True)
class Descend:
    """``x ← x − lr · m̂ / (√v̂ + eps)``; x stays where v is 0, for nothing is known of its scale."""

    lr: float
    eps: float
    correction: tuple[float, float]
    __name__: ClassVar[str] = "step of Adam"

    def __call__(self, params: Tensor, momentum: Tensor, variance: Tensor) -> Tensor:
        """The new parameters."""
        import torch

        scale = (variance / self.correction[1]).sqrt() + self.eps
        return params - torch.where(variance > 0, self.lr * momentum / (self.correction[0] * scale), 0)
