"""Layer-wise rates for large batches: momentum whose steps are in proportion to the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .base import LayerWise, require_fraction, require_lr, require_not_negative

if TYPE_CHECKING:
    import torch

    from .base import Parameters


@dataclass(frozen=True)
class LARS(LayerWise):
    """Momentum with a learning rate of its own for every parameter tensor w.

    ``local = trust · ‖w‖ / (‖g‖ + weight_decay · ‖w‖)``, ``v ← momentum · v + local · (g + weight_decay · w)``,
    ``w ← w − lr · v``. Without weight decay the size of the gradient does not matter, only its direction. A tensor of
    zeros, or with a gradient of zeros, has ``local = 1``: it moves as under ``Momentum``. As there, ``lr`` multiplies
    the velocity when it is used, not when it is gathered: with a constant rate both are the same.

    Norms are those of whole tensors, so a tensor that is cut over ranks cannot be updated in parts.

    Source: You, Gitman and Ginsburg 2017, arXiv:1708.03888.

        >>> LARS(lr=1.0).elementwise
        False
    """

    lr: float
    momentum: float = 0.9
    trust: float = 0.001
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_lr(self, self.lr)
        require_fraction(self, "momentum", self.momentum)
        require_not_negative(self, "trust", self.trust)
        require_not_negative(self, "weight_decay", self.weight_decay)

    def optimizer(self, parameters: Parameters) -> torch.optim.Optimizer:
        """See ``Rule.optimizer``."""
        from .layerwise import Lars

        return Lars(parameters, self.lr, self.momentum, self.trust, self.weight_decay)

    @property
    def state(self) -> int:
        """See ``Rule.state``."""
        return 1
