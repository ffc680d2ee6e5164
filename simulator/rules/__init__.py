"""How parameters follow gradients. A rule is a few numbers; ``torch.optim`` does the arithmetic.

- ``SGD``, ``Momentum``, ``Adam``; layer by layer: ``LARS``, ``LAMB``.
- Around any of them: ``Scheduled``, ``Clipped``, ``Scaled`` (mixed precision); for old gradients ``StalenessAware``,
  ``DelayCompensated``; different rules for different parameters: ``Groups``.

>>> from simulator import rules
>>> rules.StalenessAware(rules.Momentum(lr=0.1))
StalenessAware(rule=Momentum(lr=0.1, beta=0.9, nesterov=False, weight_decay=0.0))
"""

from .adam import Adam
from .base import Rule
from .clipped import Clipped, clip_factor
from .delay_compensated import DelayCompensated
from .groups import Groups
from .lamb import LAMB
from .lars import LARS
from .momentum import Momentum
from .scaled import FixedScale, LossScale, Scaled, alarm
from .scheduled import Scheduled
from .sgd import SGD
from .staleness_aware import StalenessAware

__all__ = [
    "LAMB",
    "LARS",
    "SGD",
    "Adam",
    "Clipped",
    "DelayCompensated",
    "FixedScale",
    "Groups",
    "LossScale",
    "Momentum",
    "Rule",
    "Scaled",
    "Scheduled",
    "StalenessAware",
    "alarm",
    "clip_factor",
]
