"""How a learning rate changes over a training: functions of the number of updates made so far.

A schedule gives a factor, by which ``rules.Scheduled`` multiplies the learning rate of its rule. Two are combined by
``*``, or put one after the other by ``then``:

>>> schedule = Warmup(4).then(Cosine(10, floor=0.1))
>>> [round(schedule(update), 3) for update in (0, 1, 3, 4, 9, 14, 99)]
[0.25, 0.5, 1.0, 1.0, 0.55, 0.1, 0.1]
"""

from .base import Product, Schedule, Then
from .scaling import linear_scaled_lr, updates_in
from .shapes import Constant, Cosine, Steps, Warmup

__all__ = [
    "Constant",
    "Cosine",
    "Product",
    "Schedule",
    "Steps",
    "Then",
    "Warmup",
    "linear_scaled_lr",
    "updates_in",
]
