"""Schedules of a pipeline, one file each: what every rank does with which microbatch, in order."""

from .gpipe import GPIPE
from .interleaved import INTERLEAVED
from .naive import NAIVE
from .one_forward_one_backward import ONE_FORWARD_ONE_BACKWARD
from .own import own
from .placing import PLACEMENTS, Place, checked_split, places, require_split
from .task import Schedule, Task
from .zbv import ZBV
from .zero_bubble import ZB_H1, ZB_H2

SCHEDULES: dict[str, Schedule] = {
    "naive": NAIVE,
    "gpipe": GPIPE,
    "1f1b": ONE_FORWARD_ONE_BACKWARD,
    "interleaved": INTERLEAVED,
    "zb-h1": ZB_H1,
    "zb-h2": ZB_H2,
    "zbv": ZBV,
}
"""The schedules that have a name."""

__all__ = ["PLACEMENTS", "SCHEDULES", "Place", "Schedule", "Task", "checked_split", "own", "places", "require_split"]
