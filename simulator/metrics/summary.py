"""The main numbers of a run at a glance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .activity import bytes_sent, peak_memory, unheld
from .exposure import exposed_communication
from .learned import final_loss, staleness
from .spending import cost, energy, unpowered, unpriced
from .timing import bubble, makespan, step_time, throughput
from .utilization import hfu, mfu, unknown

if TYPE_CHECKING:
    from ..run import Run


def summary(run: Run) -> dict[str, float]:
    """The main numbers by name, those that are known.

    Where nothing was learned there is no loss, where nothing was late no staleness, and without FLOP, prices or powers
    no utilization, cost or energy. ``peak_memory`` is that of the fullest rank.
    """
    exposed, late, loss = exposed_communication(run), staleness(run), final_loss(run)
    numbers = {
        "makespan": makespan(run),
        "step_time": step_time(run),
        "throughput": throughput(run),
        "bubble": bubble(run),
        "exposed_communication": math.fsum(exposed) / len(exposed) if exposed else 0.0,
        "bytes_sent": math.fsum(bytes_sent(run)),
    }
    numbers |= {} if unknown(run) else {"mfu": mfu(run), "hfu": hfu(run)}
    numbers |= {} if unheld(run) else {"peak_memory": max(peak_memory(run))}
    numbers |= {} if unpriced(run) else {"cost": cost(run)}
    numbers |= {} if unpowered(run) else {"energy": energy(run)}
    numbers |= {} if loss is None else {"loss": loss}
    return numbers | ({"staleness": math.fsum(late) / len(late)} if late else {})


def readable(seconds: float) -> str:
    """A time for people: ``readable(0.0123) == "12.3 ms"``."""
    if abs(seconds) >= 1000:
        return f"{seconds:,.0f} s"
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if abs(seconds) >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds / 1e-9:.4g} ns" if seconds else "0 s"
