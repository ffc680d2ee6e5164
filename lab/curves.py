"""Loss curves of Runs of either clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from simulator import checks, metrics
from simulator.run import LossRow, Run

from .drawing import A_RUN, require_axes, shortened

STRATEGY_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

STYLES: dict[str, dict[str, Any]] = {
    "virtual": {"linestyle": "--", "linewidth": 1.5, "zorder": 3},
    "wall": {"linestyle": "-", "linewidth": 3, "alpha": 0.5},
}
"""The virtual clock runs thin and dashed over the broad line of the wall clock: where they agree, both are seen."""


def losses(runs: Run | Iterable[Run] | Mapping[str, Run], ax: Axes | None = None, against: str = "time") -> Axes:
    """Draw the loss of several runs against "time" [s] or against "step" (global batches used).

    ``runs`` may have names as a dict. Each strategy has a colour; the wall clock is solid, the virtual one dashed.
    An asynchronous run is drawn as the mean over as many rows as it has workers, to compare with a synchronous
    step. Raises ValueError for another axis, for what is no Run, and for runs that noted no loss.
    """
    if against not in ("time", "step"):
        raise ValueError(f"the loss is drawn against 'time' or 'step'; got against={against!r}")
    named = _named(runs)
    require_axes(ax)
    if ax is None:
        _, ax = plt.subplots(figsize=(10, 4), layout="constrained")
    strategies = list(dict.fromkeys(run.strategy for run in named.values()))
    curves = {name: _curve(name, run, against) for name, run in named.items()}
    for name, run in named.items():
        colour = STRATEGY_COLOURS[strategies.index(run.strategy) % len(STRATEGY_COLOURS)]
        ax.plot(*curves[name], color=colour, label=name, **STYLES[run.clock])
    ax.set(xlabel="time [s]" if against == "time" else "global batches used", ylabel="loss")
    ax.set_title(
        _who_ends_lowest(against, {name: float(y[-1]) for name, (_, y) in curves.items()}), loc="left", fontsize=10
    )
    ax.legend(fontsize=8)
    ax.grid(alpha=0.3)
    return ax


def _named(runs: Run | Iterable[Run] | Mapping[str, Run]) -> dict[str, Run]:
    several = _several(runs)
    for run in several:
        checks.kind("a run", run, Run, A_RUN)
    if isinstance(runs, Mapping):
        return dict(runs)
    named: dict[str, Run] = {}
    for run in several:
        name = f"{shortened(run.strategy, 60)}, {run.clock} clock"
        named[name if name not in named else f"{name}, {len(named) + 1}"] = run
    return named


def _several(runs: Run | Iterable[Run] | Mapping[str, Run]) -> list[Run]:
    if isinstance(runs, Run):
        return [runs]
    every = runs.values() if isinstance(runs, Mapping) else runs
    several = checks.several("runs", every, "a Run, a list of Runs, or a dict from names to Runs")
    if not several:
        raise ValueError("losses are drawn of one or more Runs; got none")
    return several


def _curve(name: str, run: Run, against: str) -> tuple[np.ndarray, np.ndarray]:
    rows = metrics.losses(run)
    if not rows:
        raise ValueError(f"only a run that learned has losses, and {name} noted none: simulate or execute a Problem")
    late = [row for row in rows if isinstance(row, LossRow)]
    return _asynchronous(run, late, against) if late else _synchronous(run, against)


def _synchronous(run: Run, against: str) -> tuple[np.ndarray, np.ndarray]:
    x = metrics.step_ends(run) if against == "time" else range(1, run.steps + 1)
    return np.array(x, dtype=float), np.array(metrics.losses(run), dtype=float)


def _asynchronous(run: Run, rows: Sequence[LossRow], against: str) -> tuple[np.ndarray, np.ndarray]:
    window = min(len(run.workers), len(rows))
    y = np.convolve([row.loss for row in rows], np.full(window, 1 / window), mode="valid")
    times = np.array([row.time for row in rows]) - metrics.began(run)
    x = times if against == "time" else np.arange(1, len(rows) + 1) / len(run.workers)
    return x[window - 1 :], y


def _who_ends_lowest(against: str, last: Mapping[str, float]) -> str:
    best = min(last, key=lambda name: last[name] if np.isfinite(last[name]) else np.inf)
    who = f": lowest at the end is {shortened(best, 80)}, with" if len(last) > 1 else " ends at"
    return f"Loss against {against}{who} {last[best]:.3g}"
