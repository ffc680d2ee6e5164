"""Layer-wise rates for large batches: Adam whose steps are in proportion to the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .base import LayerWise, require_betas, require_lr, require_not_negative

if TYPE_CHECKING:
    import torch

    from .base import Parameters


@dataclass(frozen=True)
class LAMB(LayerWise):
    """Adam with a learning rate of its own for every parameter tensor w.

    With m̂ and v̂ as in ``Adam``: ``u = m̂ / (√v̂ + eps) + weight_decay · w``, ``w ← w − lr · (‖w‖ / ‖u‖) · u``: every
    tensor moves by the share ``lr`` of its own length. Where one of the norms is zero their ratio counts as 1.

    Norms are those of whole tensors, so a tensor that is cut over ranks cannot be updated in parts.

    Source: You et al. 2020, arXiv:1904.00962.

        >>> LAMB().per_tensor
        True
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_lr(self, self.lr)
        object.__setattr__(self, "betas", require_betas(self, self.betas))
        require_not_negative(self, "eps", self.eps)
        require_not_negative(self, "weight_decay", self.weight_decay)

    def optimizer(self, parameters: Parameters) -> torch.optim.Optimizer:
        """See ``Rule.optimizer``."""
        from .layerwise import Lamb

        return Lamb(parameters, self.lr, self.betas, self.eps, self.weight_decay)

    @property
    def state(self) -> int:
        """See ``Rule.state``."""
        return 2
