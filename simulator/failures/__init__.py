"""Failures of long trainings: how often machines crash, what checkpoints save, and what remains as goodput.

Closed forms of checkpointing and of reliability, and a simulation of weeks of training that wraps the time of a step:
crashes, detection, restarts, spare nodes, and trainings that shrink and grow. Times in seconds.

    >>> round(goodput(mtbf=3.093 * 3600, checkpoint=60, restart=300), 4)
    0.8758
"""

from .checkpointing import best_interval, daly, first_order_goodput, goodput, young
from .history import Event, Training
from .law import Failures
from .published import published
from .reliability import (
    elastic_step_time,
    mtbf_of_rate,
    rescaled_rate,
    speculative_tail,
    speculative_time,
    survival,
    system_mtbf,
)
from .training import simulate_training

__all__ = [
    "Event",
    "Failures",
    "Training",
    "best_interval",
    "daly",
    "elastic_step_time",
    "first_order_goodput",
    "goodput",
    "mtbf_of_rate",
    "published",
    "rescaled_rate",
    "simulate_training",
    "speculative_tail",
    "speculative_time",
    "survival",
    "system_mtbf",
    "young",
]
