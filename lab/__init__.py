"""Two Clocks, the real one: run strategies on real processes, and lay them beside their predictions.

    >>> import lab, simulator as sim
    >>> run = lab.execute(sim.DataParallel(), sim.problem("digits-mlp"), ranks=2, steps=5)  # doctest: +SKIP

Names are loaded when they are first used, so that ``twoclocks doctor`` starts where torch is missing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import plots
    from .calibration import Calibration, calibrate
    from .comparison import compare
    from .running import RunHandle, execute, start
    from .watch import StoppedError

__all__ = ["Calibration", "RunHandle", "StoppedError", "calibrate", "compare", "execute", "plots", "start"]

_HOMES = {
    "Calibration": "calibration",
    "calibrate": "calibration",
    "compare": "comparison",
    "execute": "running",
    "start": "running",
    "RunHandle": "running",
    "StoppedError": "watch",
}


def __getattr__(name: str) -> object:
    if name == "plots":
        return import_module(".plots", __name__)
    if name not in _HOMES:
        raise AttributeError(f"lab has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
