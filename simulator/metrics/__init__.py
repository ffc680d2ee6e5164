"""Metrics: functions from a Run to numbers, the same for both clocks. Times in seconds, sizes in bytes.

They look at whole columns of spans at once; a million spans take well under a second each.
"""

from .activity import bytes_sent, instructions, memory_note, peak_memory
from .arrivals import last_arrivals
from .exposure import exposed_communication, waiting
from .forecast import Forecast, extrapolate
from .holding import Held, memory_over_time, text_of
from .learned import LossRow, final_loss, losses, staleness
from .microbatches import in_flight
from .rows import COMPUTATION, began, each_rank
from .spending import carbon, cost, energy
from .summary import readable, summary
from .timing import (
    bubble,
    bubble_overhead,
    busy,
    makespan,
    samples_per_step,
    steady_step,
    steady_times,
    step_ends,
    step_time,
    step_times,
    throughput,
)
from .utilization import hfu, mfu

__all__ = [
    "COMPUTATION",
    "Forecast",
    "Held",
    "LossRow",
    "began",
    "bubble",
    "bubble_overhead",
    "busy",
    "bytes_sent",
    "carbon",
    "cost",
    "each_rank",
    "energy",
    "exposed_communication",
    "extrapolate",
    "final_loss",
    "hfu",
    "in_flight",
    "instructions",
    "last_arrivals",
    "losses",
    "makespan",
    "memory_note",
    "memory_over_time",
    "mfu",
    "peak_memory",
    "readable",
    "samples_per_step",
    "staleness",
    "steady_step",
    "steady_times",
    "step_ends",
    "step_time",
    "step_times",
    "summary",
    "text_of",
    "throughput",
    "waiting",
]
