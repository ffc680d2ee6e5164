"""Timelines: what each rank did when. They read what was observed and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulator import metrics
from simulator.run import Run
from simulator.spans import COMPUTE

from . import legends
from .bars import VISITS, Bar, visits
from .drawing import name_picture, points, require_axes, unit_of
from .legends import COLOURS, OTHER
from .shown import View, note, view_of


def timeline(run: Run, ax: Axes | None = None, steps: int | range | None = None) -> Axes:
    """Draw what every rank did when: a row per rank, computation on top, other streams as thin rows below it.

    ``steps`` is how many steps to show, or which (``range(2, 4)``); all by default. When they have more than 5 000
    bars or 32 ranks, what a rank does for a microbatch at a time becomes one bar, and then only what fits is shown; the
    title says so. A picture of a later step starts at time 0, too. Where workers do not wait for each other, a step is
    the time until the slowest has ended it. Numbers in bars are microbatches. Until the last member has come to a
    collective, the others are drawn as waiting. A server, and anybody in an asynchronous run, is drawn with all that it
    does meanwhile, whatever step that is of. Raises ValueError for what is no Run, and when nothing was observed in
    these steps.

    Example: ``plots.timeline(sim.simulate(sim.Pipeline("1f1b"), model, cluster), steps=1)``
    """
    require_axes(ax)
    view = view_of(run, steps)
    own = ax is None
    if ax is None:
        _, ax = plt.subplots(figsize=(10, _height(view)), layout="constrained")
    if own:
        legends.of_figure(ax, view.bars)
    else:
        legends.below(ax, view.bars)
    _draw(ax, run, view, view.seconds)
    return ax


def two_timelines(virtual: Run, wall: Run, steps: int | range | None = None) -> Figure:
    """Draw the two clocks one above the other with the same time axis; the arguments are as for ``timeline``.

    So what was predicted stands above what was measured. Raises ValueError as ``timeline`` does.

    Example: ``plots.two_timelines(sim.simulate(…), lab.execute(…), steps=range(2, 4))``
    """
    views = [view_of(run, steps, name) for name, run in (("virtual", virtual), ("wall", wall))]
    seconds = max(view.seconds for view in views)
    figure, axes = plt.subplots(2, sharex=True, figsize=(10, sum(map(_height, views))), layout="constrained")
    for ax, run, view in zip(axes, (virtual, wall), views, strict=True):
        _draw(ax, run, view, seconds)
    axes[0].set_xlabel("")
    legends.of_figure(axes[1], [bar for view in views for bar in view.bars])
    return figure


def _draw(ax: Axes, run: Run, view: View, seconds: float) -> None:
    size, unit = unit_of(seconds)
    lanes = _lanes(view.bars)
    per_second = points(ax) / (seconds or 1.0)
    for (rank, lane, name), group in groupby(sorted(view.bars, key=_place), key=_place):
        several = [(bar.start - view.origin, bar.end - bar.start) for bar in group]
        # A white edge tells neighbours apart, but would wash out a bar of a point or two.
        edges = [0.3 if length * per_second > 3 else 0.0 for _, length in several]
        place = view.ranks.index(rank) + lanes[lane][0], lanes[lane][1]
        shown = [(start / size, length / size) for start, length in several]
        ax.broken_barh(shown, place, facecolors=COLOURS.get(name, OTHER), edgecolors="white", linewidths=edges)
    _print_microbatches(ax, view, lanes[COMPUTE], per_second, size)
    ax.set_xlim(0, seconds / size or 1)
    if not seconds:
        ax.text(0.5, 0.5, "nothing took any time", transform=ax.transAxes, ha="center", va="center")
    since = f" since step {view.steps[0]} began" if view.steps[0] else ""
    ax.set_xlabel(f"time{since} [{unit}]")
    _name_rows(ax, run, view, lanes)
    name_picture(ax, run.strategy, f", {run.clock} clock:", f"{_fact(run)}{note(run, view)}")


def _place(bar: Bar) -> tuple[int, str, str]:
    return bar.rank, bar.lane, bar.kind


def _lanes(drawn: Sequence[Bar]) -> dict[str, tuple[float, float]]:
    """For each stream, where its bars stand within the row of a rank: bottom and height, as parts of the row."""
    others = sorted({bar.lane for bar in drawn} - {COMPUTE})
    top = 0.56 if others else 0.84
    thin = 0.28 / max(1, len(others))
    return {COMPUTE: (0.08, top)} | {name: (0.66 + i * thin, 0.88 * thin) for i, name in enumerate(others)}


def _print_microbatches(ax: Axes, view: View, lane: tuple[float, float], per_second: float, size: float) -> None:
    """Print its number into all that a rank does for a microbatch at a time, where there is room for it."""
    if max(bar.microbatch for bar in view.bars) < 1:
        return
    for visit in visits(bar for bar in view.bars if bar.lane == COMPUTE):
        number, until = str(visit.microbatch), min(visit.end, view.origin + view.seconds)
        if visit.kind in VISITS and (until - visit.start) * per_second > 4 + 5 * len(number):
            x, y = (visit.start + until) / 2 - view.origin, view.ranks.index(visit.rank) + lane[0] + lane[1] / 2
            ax.text(x / size, y, number, ha="center", va="center", fontsize=7, clip_on=True)


def _name_rows(ax: Axes, run: Run, view: View, lanes: dict[str, tuple[float, float]]) -> None:
    ax.set_ylim(len(view.ranks), 0)
    middle = {stream: bottom + height / 2 for stream, (bottom, height) in lanes.items()}
    every = max(1, len(view.ranks) // 16)
    names = {i: _called(run, rank) for i, rank in enumerate(view.ranks)}
    ax.set_yticks([i + middle[COMPUTE] for i in names][::every], list(names.values())[::every])
    if len(view.ranks) <= 8 and len(lanes) <= 3:
        thin = [(i + middle[stream], stream) for i in names for stream in lanes if stream != COMPUTE]
        ax.set_yticks([y for y, _ in thin], [stream for _, stream in thin], minor=True, fontsize=6, color="#555555")
    ax.tick_params(axis="y", which="both", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)


def _called(run: Run, rank: int) -> str:
    """A rank's name, and how many ranks behave as it does where they were simulated once."""
    many = run.stands_for[rank]
    return f"{'rank' if rank in run.workers else 'server'} {rank}" + (f" ×{many}" if many > 1 else "")


def _height(view: View) -> float:
    return min(6.0, 1.4 + 0.55 * len(view.ranks))


def _fact(run: Run) -> str:
    pace = (
        f"{run.throughput:,.0f} samples/s" if run.asynchronous else f"{metrics.readable(metrics.step_time(run))} a step"
    )
    return f"{pace}, workers idle {run.bubble:.0%} of the time"
