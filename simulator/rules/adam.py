"""Adam, with decoupled weight decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .base import Rule, require_betas, require_lr, require_not_negative

if TYPE_CHECKING:
    import torch

    from .base import Parameters


@dataclass(frozen=True)
class Adam(Rule):
    """Adam: steps of about ``lr`` whatever the size of the gradient.

    ``m ← β1 m + (1 − β1) g``, ``v ← β2 v + (1 − β2) g²``, ``x ← x − lr · m̂ / (√v̂ + eps)``, where m̂ and v̂ are
    divided by ``1 − β^t``. Weight decay is the decoupled kind (AdamW): x first shrinks by ``lr · weight_decay``,
    and the moments do not see it. Without weight decay both kinds are the same.

    Source: Kingma and Ba 2015, arXiv:1412.6980; Loshchilov and Hutter 2019, arXiv:1711.05101.

        >>> Adam(lr=3e-4).betas
        (0.9, 0.999)
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_lr(self, self.lr)
        object.__setattr__(self, "betas", require_betas(self, self.betas))
        require_not_negative(self, "eps", self.eps)
        require_not_negative(self, "weight_decay", self.weight_decay)

    @property
    def state(self) -> int:
        """See ``Rule.state``."""
        return 2

    def optimizer(self, parameters: Parameters) -> torch.optim.Optimizer:
        """See ``Rule.optimizer``."""
        import torch

        return torch.optim.AdamW(parameters, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay)
