"""What the operating system adds by chance: delays as often as they were measured."""

from __future__ import annotations

import random
from collections.abc import Callable

from .clusters.overheads import Overheads


class Delays:
    """Draws the delays of a run. Each kind has a chance of its own: more of one leave the others as they are."""

    def __init__(self, overheads: Overheads, seed: int):
        sends, messages = overheads.send_delays, overheads.message_delays
        self.send = _drawn(sends, f"sends {seed}")
        self.crossed = _drawn(overheads.crossed_delays or sends, f"crossed {seed}")
        self.message = _drawn(messages, f"messages {seed}")
        self.late = _drawn(overheads.late_delays or messages, f"late {seed}")
        self.collective = _drawn(overheads.collective_delays, f"collectives {seed}")


def _drawn(delays: tuple[float, ...], seed: str) -> Callable[[], float]:
    """Draws one of the delays at every call; none where there are none."""
    draw = random.Random(seed).choice
    return (lambda: draw(delays)) if delays else lambda: 0.0
