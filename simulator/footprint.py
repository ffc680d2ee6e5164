"""Bytes by kind, and when they are held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Footprint:
    """Bytes by kind.

    ``activations``: what forward passes keep for backward passes. ``buffers``: a program's own, gradients of
    activations on their way, and what a block needs only while it runs, recomputed activations among it.

    >>> Footprint(parameters=2.0, gradients=2.0, optimizer=12.0).total
    16.0
    """

    parameters: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    activations: float = 0.0
    buffers: float = 0.0

    @property
    def total(self) -> float:
        """All kinds together."""
        return self.parameters + self.gradients + self.optimizer + self.activations + self.buffers


class Moment(NamedTuple):
    """What is held while an instruction runs."""

    step: int
    instruction: str
    held: Footprint
