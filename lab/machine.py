"""This machine: how many cores it has, and how many of them somebody else is using."""

from __future__ import annotations

import os
import sys

import psutil


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def busy_cores(seconds: float = 0.3) -> float:
    """Cores at work while this process waits for ``seconds``: what other processes take. Idle: near 0."""
    return psutil.cpu_percent(interval=seconds) / 100 * (os.cpu_count() or 1)


def is_idle(busy: float) -> bool:
    """Whether so little is at work that measured times can be trusted: less than 15 % of one core per core."""
    return busy < 0.15 * cores()
