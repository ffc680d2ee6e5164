"""Pictures of Runs, of either clock, with matplotlib: ``timeline``, ``two_timelines``, ``losses`` and ``memory``."""

from __future__ import annotations

from .curves import losses
from .holdings import memory
from .shown import BARS
from .timelines import timeline, two_timelines

__all__ = ["BARS", "losses", "memory", "timeline", "two_timelines"]
