"""Clipped updates with Gaussian noise: what leaves a client says little of any of its samples, or of the client.

Source: McMahan et al. 2018, arXiv:1710.06963 (DP-FedAvg); here every client adds its own noise before it sends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ... import checks
from ...program import Compute, Send
from ...rank import Rank
from ...stack import Layer, Program, Rules
from ..alike import require_whole
from .federated import AXIS
from .guarding import require_federation, tells
from .secure_aggregation import Masked

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Noised:
    """``u · min(1, clip / ‖u‖) + N(0, (sigma · clip)²)``, drawn from ``key``."""

    __name__: ClassVar[str] = "clip and noise"
    clip: float
    sigma: float
    key: tuple[int, ...]

    def __call__(self, update: Tensor) -> Tensor:
        """An update of any shape, in the same."""
        import torch

        from ...problems.draws import generator

        clipped = update * min(1.0, self.clip / max(float(update.norm()), 1e-300))
        noise = torch.randn(update.shape, generator=generator(*self.key), dtype=torch.float64)
        return clipped + noise.to(update) * (self.sigma * self.clip)


@dataclass(frozen=True)
class GaussianNoise(Layer):
    """Clip every update that leaves a client to the norm ``clip``, and add noise of deviation ``sigma · clip``.

    ``u ← u · min(1, clip / ‖u‖₂) + N(0, (sigma · clip)² I)``. An update is the client's change times its part of the
    round's data, so ``clip`` bounds what one client can move the model. The sum over n clients carries noise of
    deviation ``√n · sigma · clip`` per parameter.

    - ``clip``: the largest norm, in units of the parameters. ``sigma``: the noise multiplier; 0 only clips.
    - ``seed``: of the noise; it also depends on the client, the step and the message.

    It stands over ``FedAvg``, ``FedProx``, ``SCAFFOLD`` or ``FedBuff``, and below ``SecureAggregation``. Raises
    ValueError elsewhere, for a clip that is not positive and for a negative sigma.

    >>> from simulator import FedAvg, stack
    >>> print(stack(FedAvg(), GaussianNoise(clip=0.5, sigma=0.8)))
    FedAvg(local_steps=8) + GaussianNoise(clip=0.5, sigma=0.8)
    """

    named: ClassVar[tuple[str, ...]] = ("clip", "sigma")

    clip: float = 1.0
    sigma: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("clip", self.clip, above=0, of="GaussianNoise")
        checks.number("sigma", self.sigma, least=0, of="GaussianNoise")
        checks.whole("seed", self.seed, of="GaussianNoise")

    def rules(self, me: Rank) -> Rules:
        require_federation("GaussianNoise", me)
        require_whole(me, self)

        def send(send: Send) -> Program:
            if tells("GaussianNoise", me, send):
                # Ranks that are one client together draw the same.
                key = (self.seed, me.at(AXIS), me.step, getattr(send.value, "key", 0))
                yield Compute(Noised(self.clip, self.sigma, key), (send.value,), (send.value,))
            yield send

        def pass_on(compute: Compute) -> Program:
            if isinstance(compute.function, Masked):
                raise ValueError(
                    "masks hide what is clipped and noised, so noise comes first: write"
                    " stack(…, GaussianNoise(…), SecureAggregation())"
                )
            yield compute

        return {Send: send, Compute: pass_on}
