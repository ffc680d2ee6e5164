"""What is known of a mix: what a microbatch costs in every block, and what a step spends its seconds on."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import fsum

from .reading import Read


@dataclass(frozen=True)
class Parts:
    """The seconds of a step, by what they are spent on; all together are the step.

    ``compute``: of the mean rank, with updates; ``tensor``: what ranks tell each other that share blocks; ``bubble``:
    where a pipeline fills and drains, waits for its slowest stage, and for messages; ``data``: what gradients and
    parameters cost beyond what computation hides.
    """

    compute: float
    tensor: float
    bubble: float
    data: float

    @property
    def total(self) -> float:
        """Of the step [s]."""
        return fsum(getattr(self, one.name) for one in fields(self))


@dataclass(frozen=True)
class Costs:
    """One microbatch through every block of a rank's share of the model: seconds forward and backward, and of these,
    what ranks tell each other; and the blocks themselves.
    """

    forward: tuple[float, ...]
    backward: tuple[float, ...]
    told: tuple[float, ...]
    blocks: tuple[Read, ...]

    def block(self, number: int) -> tuple[float, float, float, Read]:
        """Those of one block."""
        return self.forward[number], self.backward[number], self.told[number], self.blocks[number]
