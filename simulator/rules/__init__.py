"""How parameters follow gradients. A rule is a few numbers; ``torch.optim`` does the arithmetic.

>>> from simulator import rules
>>> rules.StalenessAware(rules.Momentum(lr=0.1))
StalenessAware(rule=Momentum(lr=0.1, beta=0.9, nesterov=False, weight_decay=0.0))
"""

from .adam import Adam
from .base import Rule
from .delay_compensated import DelayCompensated
from .momentum import Momentum
from .sgd import SGD
from .staleness_aware import StalenessAware

__all__ = ["SGD", "Adam", "DelayCompensated", "Momentum", "Rule", "StalenessAware"]
