"""Timelines: what each rank did when. They read what was observed and nothing else.

Colours are those of Okabe and Ito (2008), "Color Universal Design": people with any colour vision tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from textwrap import wrap
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.transforms import ScaledTranslation

from simulator import checks, metrics
from simulator.run import Run
from simulator.spans import COMPUTE, RANK, START, STEP

from .bars import VISITS, WAITING, Bar, bars, visits
from .curves import A_RUN, require_axes, shortened

BARS = 5000
"""What a picture can hold: matplotlib grows slow and eyes tired beyond it."""

ROWS = 32
"""Ranks that can still be told apart."""
LETTER = 5.4
"""How wide a letter of a title is on average, in points."""
COLUMN = 105
"""How wide a column of a legend is, in points."""

GROUPS = {
    "Load": ("#CC79A7", ("Load",)),
    "Forward": ("#56B4E9", ("Forward", "ForwardPart")),
    "Loss": ("#F0E442", ("Loss",)),
    "Backward": ("#E69F00", ("Backward", "BackwardInput", "BackwardPart")),
    "weights": ("#B37400", ("BackwardWeight",)),
    "Update": ("#009E73", ("Update",)),
    "maths": ("#000000", ("Reduce", "Copy", "Compute", "Measure", "Free")),
    "collective": ("#0072B2", ("AllReduce", "ReduceScatter", "AllGather", "Broadcast", "AllToAll")),
    "Send": ("#D55E00", ("Send",)),
    "waiting": ("#D9D9D9", ("Recv", "Wait", "Until", "Barrier", WAITING)),
}
"""Group of instructions: its colour and its types. Other types are drawn in ``OTHER``."""

OTHER = "#8C8C8C"
COLOURS = {name: colour for colour, names in GROUPS.values() for name in names}


@dataclass(frozen=True)
class View:
    """The part of a run that a picture shows: some bars, from ``origin`` [s] on, for some ``seconds`` of ``all``.

    ``joined``: whether each bar is all that a rank does for a microbatch at a time.
    """

    bars: list[Bar]
    origin: float
    seconds: float
    all: float
    steps: range
    ranks: list[int]
    joined: bool


def timeline(run: Run, ax: Axes | None = None, steps: int | range | None = None) -> Axes:
    """Draw what every rank did when: a row per rank, computation on top, other streams as thin rows below it.

    ``steps`` is how many steps to show, or which (``range(2, 4)``); all by default. When they have more than 5 000
    bars or 32 ranks, what a rank does for a microbatch at a time becomes one bar, and then only what fits is shown; the
    title says so. A picture of a later step starts at time 0, too. Numbers in bars are microbatches. Until the last
    member has come to a collective, the others are drawn as waiting. Raises ValueError for what is no Run, and when
    nothing was observed in these steps.
    """
    require_axes(ax)
    view = _view(run, steps)
    own = ax is None
    if ax is None:
        _, ax = plt.subplots(figsize=(10, _height(view)), layout="constrained")
    if own:
        _legend_of_figure(ax, view.bars)
    else:
        _legend_below(ax, view.bars)
    _draw(ax, run, view, view.seconds)
    return ax


def two_timelines(virtual: Run, wall: Run, steps: int | range | None = None) -> Figure:
    """Draw the two clocks one above the other with the same time axis; the arguments are as for ``timeline``."""
    views = [_view(run, steps, name) for name, run in (("virtual", virtual), ("wall", wall))]
    seconds = max(view.seconds for view in views)
    figure, axes = plt.subplots(2, sharex=True, figsize=(10, sum(map(_height, views))), layout="constrained")
    for ax, run, view in zip(axes, (virtual, wall), views, strict=True):
        _draw(ax, run, view, seconds)
    axes[0].set_xlabel("")
    _legend_of_figure(axes[1], [bar for view in views for bar in view.bars])
    return figure


# ---------------------------------------------------------------- what is shown


def _view(run: Run, steps: int | range | None, name: str = "run") -> View:
    checks.kind(name, run, Run, A_RUN)
    table, step, wanted = run.spans.table(), _steps(run), _wanted(run, steps)
    shown = np.isin(table[:, RANK], _ranks(run)) & np.isin(step, wanted)
    if not shown.any():
        raise ValueError(f"the run has spans in steps 0 to {run.steps - 1}; got steps={steps}")
    shown &= step <= _last_that_fits(step[shown])
    every = bars(run, np.flatnonzero(shown))
    drawn = visits(every) if len(every) > BARS else every
    start, end = min(bar.start for bar in drawn), max(bar.end for bar in drawn)
    until, fitting = _first(_of_fewer(drawn), end)
    which = range(int(step[shown].min()), int(step[shown].max()) + 1)
    ranks = sorted({bar.rank for bar in fitting})
    return View(fitting, start, until - start, end - start, which, ranks, joined=len(every) > BARS)


def _wanted(run: Run, steps: int | range | None) -> range | list[int] | tuple[int, ...]:
    """The steps that somebody asked for."""
    kinds = (int, range, list, tuple, type(None))
    checks.kind("steps", steps, kinds, "how many steps to show, or which, such as range(2, 4)")
    if steps is None:
        return range(run.steps)
    if not isinstance(steps, int):
        return steps
    if not 1 <= steps <= run.steps:
        raise ValueError(
            f"of a run of {run.steps} steps, 1 to {run.steps} can be shown, or which, such as range(2, 4); got"
            f" steps={steps}"
        )
    return range(steps)


def _steps(run: Run) -> np.ndarray:
    """The step of each span. A server has no steps of its own: what it does belongs to the one that ends next."""
    table = run.spans.table()
    meanwhile = np.searchsorted(metrics.step_ends(run), table[:, START] - metrics.began(run), side="right")
    return np.where(np.isin(table[:, RANK], run.workers), table[:, STEP], np.minimum(meanwhile, run.steps - 1))


def _ranks(run: Run) -> list[int]:
    """The ranks that find room: servers in half of it, workers in the rest."""
    workers = set(run.workers)
    servers = _spread([rank for rank in run.stands_for if rank not in workers], ROWS // 2)
    return [*servers, *_spread([rank for rank in run.stands_for if rank in workers], ROWS - len(servers))]


def _spread(ranks: list[int], room: int) -> list[int]:
    """So many of the ranks, evenly spread, so that a pipeline's stages are all there."""
    count = min(room, len(ranks))
    return [ranks[at * len(ranks) // count] for at in range(count)]


def _of_fewer(drawn: list[Bar]) -> list[Bar]:
    """The bars of fewer ranks, where there are too many."""
    ranks = sorted({bar.rank for bar in drawn})
    chosen = set(_spread(ranks, max(1, len(ranks) * BARS // len(drawn))))
    return [bar for bar in drawn if bar.rank in chosen]


def _first(drawn: list[Bar], end: float) -> tuple[float, list[Bar]]:
    """The bars that fit, and until when all of them do [s]."""
    if len(drawn) <= BARS:
        return end, drawn
    in_order = sorted(drawn, key=lambda bar: bar.start)
    return in_order[BARS].start, in_order[:BARS]


def _last_that_fits(values: np.ndarray) -> int:
    """The largest value such that at most ``BARS`` entries are no larger; but at least the smallest value."""
    kinds, counts = np.unique(values, return_counts=True)
    fitting = int(np.count_nonzero(np.cumsum(counts) <= BARS))
    return int(kinds[max(0, fitting - 1)])


def _note(run: Run, view: View) -> str:
    """Which part is shown, where it is not all, on a line of its own."""
    part = []
    if len(view.steps) < run.steps:
        first, last = view.steps[0], view.steps[-1]
        part.append(f"{f'step {first}' if first == last else f'steps {first}–{last}'} of 0–{run.steps - 1}")
    if len(view.ranks) < len(run.stands_for):
        part.append(f"{len(view.ranks)} of {run.ranks} ranks")
    if view.seconds < view.all:
        part.append(f"the first {metrics.readable(view.seconds)} of {metrics.readable(view.all)}")
    said = [f"{' and '.join(part)} shown"] if part else []
    if len(view.ranks) == len(run.stands_for) < run.ranks:
        said.append(f"{len(view.ranks)} ranks stand for all {run.ranks}")
    if view.joined:
        said.append("all that a rank does for a microbatch at a time is one bar")
    return f"\n({'; '.join(said)})" if said else ""


# ---------------------------------------------------------------- bars


def _draw(ax: Axes, run: Run, view: View, seconds: float) -> None:
    size, unit = _unit(seconds)
    lanes = _lanes(view.bars)
    points = _points(ax) / (seconds or 1.0)
    for (rank, lane, name), group in groupby(sorted(view.bars, key=_place), key=_place):
        several = [(bar.start - view.origin, bar.end - bar.start) for bar in group]
        # A white edge tells neighbours apart, but would wash out a bar of a point or two.
        edges = [0.3 if length * points > 3 else 0.0 for _, length in several]
        place = view.ranks.index(rank) + lanes[lane][0], lanes[lane][1]
        shown = [(start / size, length / size) for start, length in several]
        ax.broken_barh(shown, place, facecolors=COLOURS.get(name, OTHER), edgecolors="white", linewidths=edges)
    _print_microbatches(ax, view, lanes[COMPUTE], points, size)
    ax.set_xlim(0, seconds / size or 1)
    if not seconds:
        ax.text(0.5, 0.5, "nothing took any time", transform=ax.transAxes, ha="center", va="center")
    since = f" since step {view.steps[0]} began" if view.steps[0] else ""
    ax.set_xlabel(f"time{since} [{unit}]")
    _name_rows(ax, run, view, lanes)
    _name_picture(ax, run, view)


def _name_picture(ax: Axes, run: Run, view: View) -> None:
    width = max(20, int(_points(ax) / LETTER))
    clock = f", {run.clock} clock:"
    lines = [part for line in f"{_fact(run)}{_note(run, view)}".splitlines() for part in wrap(line, width)]
    named = f"{shortened(run.strategy, width - len(clock))}{clock}"
    ax.set_title("\n".join([named, *lines]), loc="left", fontsize=10)


def _place(bar: Bar) -> tuple[int, str, str]:
    return bar.rank, bar.lane, bar.kind


def _lanes(drawn: Sequence[Bar]) -> dict[str, tuple[float, float]]:
    """For each stream, where its bars stand within the row of a rank: bottom and height, as parts of the row."""
    others = sorted({bar.lane for bar in drawn} - {COMPUTE})
    top = 0.56 if others else 0.84
    thin = 0.28 / max(1, len(others))
    return {COMPUTE: (0.08, top)} | {name: (0.66 + i * thin, 0.88 * thin) for i, name in enumerate(others)}


def _print_microbatches(ax: Axes, view: View, lane: tuple[float, float], points: float, size: float) -> None:
    """Print its number into all that a rank does for a microbatch at a time, where there is room for it."""
    if max(bar.microbatch for bar in view.bars) < 1:
        return
    for visit in visits(bar for bar in view.bars if bar.lane == COMPUTE):
        number, until = str(visit.microbatch), min(visit.end, view.origin + view.seconds)
        if visit.kind in VISITS and (until - visit.start) * points > 4 + 5 * len(number):
            x, y = (visit.start + until) / 2 - view.origin, view.ranks.index(visit.rank) + lane[0] + lane[1] / 2
            ax.text(x / size, y, number, ha="center", va="center", fontsize=7, clip_on=True)


def _points(ax: Axes) -> float:
    """How wide the axes are, in points, before they are laid out; a little less than in the end."""
    return ax.get_window_extent().width / ax.get_figure(root=True).dpi * 72  # type: ignore[union-attr]


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


def _legend_of_figure(ax: Axes, drawn: Sequence[Bar]) -> None:
    figure: Any = ax.get_figure(root=True)
    figure.legend(handles=_patches(drawn), loc="outside lower center", ncols=9, frameon=False, fontsize=8)


def _legend_below(ax: Axes, drawn: Sequence[Bar]) -> None:
    """Below the axes, which make room for it where the figure makes none."""
    patches = _patches(drawn)
    columns = max(1, min(len(patches), int(_points(ax) / COLUMN)))
    lines, figure, box = -(-len(patches) // columns), ax.get_figure(root=True), ax.get_position()
    assert figure is not None
    room = (36 + 13 * lines) / 72 / figure.get_size_inches()[1]
    if figure.get_layout_engine() is None and room < box.height / 2:
        ax.set_position((box.x0, box.y0 + room, box.width, box.height - room))
    under = ax.transAxes + ScaledTranslation(0.0, -36 / 72, figure.dpi_scale_trans)
    ax.legend(
        handles=patches, loc="upper left", bbox_to_anchor=(0.0, 0.0), bbox_transform=under, ncols=columns,
        borderaxespad=0.0, borderpad=0.0, frameon=False, fontsize=8,
    )  # fmt: skip


def _patches(drawn: Sequence[Bar]) -> list[Patch]:
    seen = {bar.kind for bar in drawn}
    names = {colour: [name for name in types if name in seen] for colour, types in GROUPS.values()}
    names[OTHER] = sorted(seen - set(COLOURS))
    return [Patch(color=colour, label=", ".join(types)) for colour, types in names.items() if types]


def _height(view: View) -> float:
    return min(6.0, 1.4 + 0.55 * len(view.ranks))


def _fact(run: Run) -> str:
    pace = (
        f"{run.throughput:,.0f} samples/s" if run.asynchronous else f"{metrics.readable(metrics.step_time(run))} a step"
    )
    return f"{pace}, workers idle {run.bubble:.0%} of the time"


def _unit(seconds: float) -> tuple[float, str]:
    units = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
    return next((pair for pair in units if seconds >= pair[0]), units[-1] if seconds else units[0])
