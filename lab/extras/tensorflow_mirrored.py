"""The engine ``tensorflow-mirrored``: TensorFlow's MirroredStrategy, replicas of one process on logical CPUs.

A rank of its Run is a replica. All work at the same time, so each has the same spans; no process sends anything.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .preparing import Extra, ranks_once
from .tensorflow import REPLICATED, accept

if TYPE_CHECKING:
    from simulator.run import Run

    from ..running import Job

EXTRA = Extra("tensorflow-mirrored", "tensorflow", "tensorflow-cpu", "tensorflow", REPLICATED)


def execute(job: Job, timeout: float, progress: bool) -> Run:
    """Train with MirroredStrategy. ValueError as from the engine ``tensorflow``."""
    accept(EXTRA, job)
    from .mirrored import all_in_one

    (found,) = ranks_once(partial(all_in_one, job.ranks), job, 1, timeout, progress)
    return job.run(found, EXTRA.note(f"MirroredStrategy on {job.ranks} logical CPUs of one process"))
