"""Two Clocks, the real one: run strategies on real processes, and lay them beside their predictions.

    >>> import lab, simulator as sim
    >>> run = lab.execute(sim.DataParallel(), sim.problem("digits-mlp"), ranks=2, steps=5)  # doctest: +SKIP
"""

from . import plots
from .calibrate import Calibration, calibrate
from .comparison import compare
from .execute import RunHandle, execute, start

__all__ = ["Calibration", "RunHandle", "calibrate", "compare", "execute", "plots", "start"]
