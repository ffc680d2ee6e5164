"""The main job: four strategies on both clocks, one table, pictures and traces. ``twoclocks demo`` calls it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import simulator as sim

from .doctor import Check, idle

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from simulator.checking import AnyStrategy
    from simulator.problem import Problem

    from .comparison import Pair

SHOWN_STEPS = 3
"""Steps in a picture of timelines: enough to see the rhythm."""


def demo(
    problem: str | Problem = "digits-mlp", ranks: int = 2, steps: int = 200, seed: int = 0, out: str | Path = "demo"
) -> pd.DataFrame:
    """Predict and measure four strategies, print one table and write everything into the folder ``out``.

    - ``problem``: a name that ``sim.problem`` knows, or one of your own.
    - ``ranks``: processes that train; a parameter server adds one. ``steps``: updates per worker.
    - ``seed``: draws weights and batches.

    Returns the table, a row per strategy. Raises ValueError for what cannot run, RankError when a rank fails.
    """
    check(ranks, steps)
    learned = sim.problem(problem) if isinstance(problem, str) else problem
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    machine = idle()  # before our own ranks are the load
    named = measure(learned, ranks, steps, seed)
    table = write(named, folder)
    print(f"\n{heading(learned, ranks, steps)}\n\n{text(table, list(named))}\n\n{explain(folder)}\n\n{honest(machine)}")
    return table


def check(ranks: int, steps: int) -> None:
    """Raise ValueError where there is nothing to compare."""
    if ranks < 2:
        raise ValueError(f"the demo compares ways to share work, so it needs at least 2 ranks; got --ranks {ranks}")
    if steps < 2:
        raise ValueError(f"the first step warms up, so the demo needs at least 2; got --steps {steps}")


def plan(ranks: int) -> dict[str, tuple[AnyStrategy, int]]:
    """What the demo compares: a name, the strategy, and on how many ranks; those with as many stand together."""
    return {
        "data parallel": (sim.DataParallel(), ranks),
        "pipeline 1f1b": (sim.Pipeline("1f1b", microbatches=4), ranks),
        "server sync": (sim.ParameterServer(mode="sync"), ranks + 1),
        "server async": (sim.ParameterServer(mode="async"), ranks + 1),
    }


def measure(problem: Problem, ranks: int, steps: int, seed: int) -> dict[str, Pair]:
    """Each strategy on both clocks, by name."""
    from .comparison import pairs

    found: dict[str, Pair] = {}
    for size, items in groupby(plan(ranks).items(), key=lambda item: item[1][1]):
        strategies = {name: strategy for name, (strategy, _) in items}
        print(f"{problem.name} on {size} ranks: {', '.join(strategies)} ...", flush=True)
        found |= zip(strategies, pairs(list(strategies.values()), problem, size, steps, seed), strict=True)
    return found


# ---------------------------------------------------------------- files


def write(named: dict[str, Pair], folder: Path) -> pd.DataFrame:
    """Write the table, the pictures, the runs and their traces; hand back the table."""
    from .comparison import table

    rows = table(list(named.values()))
    rows.to_csv(folder / "table.csv", index=False)
    for name, pair in named.items():
        for run in (pair.virtual, pair.wall):
            stem = f"{name.replace(' ', '-')}-{run.clock}"
            run.save(folder / f"{stem}.run")
            run.to_chrome_trace(folder / f"{stem}.json")
    draw(named, folder)
    return rows


def draw(named: dict[str, Pair], folder: Path) -> None:
    """Write ``timelines.png``, each strategy on both clocks, and ``losses.png``."""
    import matplotlib.pyplot as plt

    from . import plots

    last = min(pair.virtual.steps for pair in named.values())
    first = max(0, (last - SHOWN_STEPS) // 2)  # in the midst, where all workers are busy
    shown = range(first, min(last, first + SHOWN_STEPS))
    one_below_another(
        [plots.two_timelines(pair.virtual, pair.wall, steps=shown) for pair in named.values()], folder / "timelines.png"
    )
    runs = {f"{name}, {run.clock}": run for name, pair in named.items() for run in (pair.virtual, pair.wall)}
    figure, ax = plt.subplots(figsize=(10, 4), layout="constrained")
    plots.losses(runs, ax)
    one_below_another([figure], folder / "losses.png")


def one_below_another(figures: Sequence[Figure], path: Path) -> None:
    """Draw figures of one width into one picture."""
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    pictures = []
    for figure in figures:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pictures.append(np.asarray(canvas.buffer_rgba()))
        plt.close(figure)
    plt.imsave(path, np.vstack(pictures))


# ---------------------------------------------------------------- what is printed


def heading(problem: Problem, ranks: int, steps: int) -> str:
    """What the table shows."""
    return (
        f"{problem.name}, {steps} steps, {ranks} ranks that train (a parameter server adds one);\n"
        "the virtual clock predicts, the wall clock measures"
    )


def text(table: pd.DataFrame, names: Sequence[str]) -> str:
    """The table for a terminal: a column per strategy, a line per quantity, which fits in 100 characters."""
    quantities = [column for column in table.columns if column != "strategy"]
    width = max(map(len, quantities)) + 2
    lines = ["".join([" " * width, *(f"{name:>16}" for name in names)])]
    for quantity in quantities:
        lines.append("".join([f"{quantity:<{width}}", *(f"{short(value):>16}" for value in table[quantity])]))
    return "\n".join(lines)


def short(value: object) -> str:
    """A number with four digits; a dash where there is none."""
    if value is None or value != value:
        return "-"
    return f"{value:,.4g}" if isinstance(value, float) and abs(value) < 1e4 else f"{value:,.0f}"


def explain(folder: Path) -> str:
    """What was written, and how to open it."""
    return "\n".join(
        [
            f"{folder}/table.csv       the table",
            f"{folder}/timelines.png   {SHOWN_STEPS} steps of each strategy, both clocks one above the other",
            f"{folder}/losses.png      the loss against time",
            f"{folder}/*.run           the runs themselves: simulator.Run.load(path)",
            f"{folder}/*.json          traces: open https://ui.perfetto.dev and drop a file on it",
        ]
    )


def honest(machine: Check) -> str:
    """Whether the errors can be taken at their word."""
    if machine.ok:
        return f"This machine was idle when the demo began ({machine.found})."
    return f"This machine was NOT idle when the demo began ({machine.found}): expect larger errors."
