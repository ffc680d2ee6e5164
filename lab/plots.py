"""Pictures of Runs, of either clock, with matplotlib: ``timeline``, ``two_timelines`` and ``losses``."""

from __future__ import annotations

from .curves import losses
from .timelines import BARS, timeline, two_timelines

__all__ = ["BARS", "losses", "timeline", "two_timelines"]
