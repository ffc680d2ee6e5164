"""Timelines: what each rank did when. They read what was observed and nothing else.

Colours are those of Okabe and Ito (2008), "Color Universal Design": people with any colour vision tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from simulator import checks, metrics
from simulator.run import Run, Span
from simulator.spans import COMPUTE, END, RANK, START, STEP, kind

from .curves import shortened

BARS = 5000
"""What a picture can hold: matplotlib grows slow and eyes tired beyond it."""

ROWS = 32
"""Ranks that can still be told apart."""

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
    "waiting": ("#D9D9D9", ("Recv", "Wait", "Until", "Barrier")),
}
"""Group of instructions: its colour and its types. Other types are drawn in ``OTHER``."""

OTHER = "#8C8C8C"
COLOURS = {name: colour for colour, names in GROUPS.values() for name in names}
SENDS = "to …"
"""The row in which all streams to single ranks ("to 3") are drawn."""


@dataclass(frozen=True)
class View:
    """The part of a run that a picture shows: some spans, from ``origin`` [s] on, for some ``seconds``."""

    spans: list[Span]
    origin: float
    seconds: float
    steps: range
    ranks: list[int]


def timeline(run: Run, ax: Axes | None = None, steps: int | range | None = None) -> Axes:
    """Draw what every rank did when: a row per rank, computation on top, other streams as thin rows below it.

    ``steps`` is how many steps to show, or which (``range(2, 4)``); all by default. When they have more than 5 000
    bars or 32 ranks, only what fits is shown, and the title says so. A picture of a later step starts at time 0, too.
    Numbers in bars are microbatches. Raises ValueError when nothing was observed in these steps.
    """
    view = _view(run, steps)
    own = ax is None
    if ax is None:
        _, ax = plt.subplots(figsize=(10, _height(view)), layout="constrained")
    _draw(ax, run, view, view.seconds)
    _legend(ax, view.spans, below=own)
    return ax


def two_timelines(virtual: Run, wall: Run, steps: int | range | None = None) -> Figure:
    """Draw the two clocks one above the other with the same time axis; the arguments are as for ``timeline``."""
    views = [_view(run, steps) for run in (virtual, wall)]
    seconds = max(view.seconds for view in views)
    figure, axes = plt.subplots(2, sharex=True, figsize=(10, sum(map(_height, views))), layout="constrained")
    for ax, run, view in zip(axes, (virtual, wall), views, strict=True):
        _draw(ax, run, view, seconds)
    axes[0].set_xlabel("")
    _legend(axes[1], [span for view in views for span in view.spans], below=True)
    return figure


# ---------------------------------------------------------------- what is shown


def _view(run: Run, steps: int | range | None) -> View:
    checks.kind("run", run, Run, "a Run, as simulate(…) gives it")
    wanted = range(run.steps) if steps is None else range(steps) if isinstance(steps, int) else steps
    table, step = run.spans.table(), _steps(run)
    shown = np.isin(table[:, RANK], _ranks(run)) & np.isin(step, wanted)
    if not shown.any():
        raise ValueError(f"the run has spans in steps 0 to {run.steps - 1}; got steps={steps}")
    shown &= step <= _last_that_fits(step[shown])
    shown &= table[:, RANK] <= _last_that_fits(table[shown, RANK])
    rows = np.flatnonzero(shown)[:BARS]
    start, end = float(table[rows, START].min()), float(table[rows, END].max())
    spans = [run.spans[i] for i in rows]
    which = range(int(step[rows].min()), int(step[rows].max()) + 1)
    return View(spans, start, end - start, which, sorted({span.rank for span in spans}))


def _steps(run: Run) -> np.ndarray:
    """The step of each span. A server has no steps of its own: what it does belongs to the one that ends next."""
    table = run.spans.table()
    meanwhile = np.searchsorted(metrics.step_ends(run), table[:, START] - metrics.began(run), side="right")
    return np.where(np.isin(table[:, RANK], run.workers), table[:, STEP], np.minimum(meanwhile, run.steps - 1))


def _ranks(run: Run) -> list[int]:
    """The ranks that find room: the first servers in half of it, the first workers in the rest."""
    workers = set(run.workers)
    servers = [rank for rank in run.stands_for if rank not in workers][: ROWS // 2]
    return [*servers, *[rank for rank in run.stands_for if rank in workers][: ROWS - len(servers)]]


def _last_that_fits(values: np.ndarray) -> int:
    """The largest value such that at most ``BARS`` entries are no larger; but at least the smallest value."""
    kinds, counts = np.unique(values, return_counts=True)
    fitting = int(np.count_nonzero(np.cumsum(counts) <= BARS))
    return int(kinds[max(0, fitting - 1)])


def _note(run: Run, view: View) -> str:
    """Which part is shown, where it is not all."""
    part = []
    if len(view.steps) < run.steps:
        first, last = view.steps[0], view.steps[-1]
        part.append(f"{f'step {first}' if first == last else f'steps {first}–{last}'} of 0–{run.steps - 1}")
    if len(view.ranks) < run.ranks:
        part.append(f"{len(view.ranks)} of {run.ranks} ranks")
    return f" ({' and '.join(part)} shown)" if part else ""


# ---------------------------------------------------------------- bars


def _draw(ax: Axes, run: Run, view: View, seconds: float) -> None:
    size, unit = _unit(seconds)
    lanes = _lanes(view.spans)
    points = _points(ax) * size / (seconds or size)
    many = any(" mb" in span.instruction and not span.instruction.endswith(" mb0") for span in view.spans)
    for (rank, stream, name), group in groupby(sorted(view.spans, key=_place), key=_place):
        spans = list(group)
        bars = [((span.start - view.origin) / size, (span.end - span.start) / size) for span in spans]
        bottom, height = view.ranks.index(rank) + lanes[stream][0], lanes[stream][1]
        # A white edge tells neighbours apart, but would wash out a bar of a point or two.
        edges = [0.3 if length * points > 3 else 0.0 for _, length in bars]
        colour = COLOURS.get(name, OTHER)
        ax.broken_barh(bars, (bottom, height), facecolors=colour, edgecolors="white", linewidths=edges)
        if many and stream == COMPUTE:
            _print_microbatches(ax, spans, bars, bottom + height / 2, points)
    ax.set_xlim(0, seconds / size or 1)
    since = f" since step {view.steps[0]} began" if view.steps[0] else ""
    ax.set_xlabel(f"time{since} [{unit}]")
    _name_rows(ax, run, view, lanes)
    ax.set_title(
        f"{shortened(run.strategy, 90)}, {run.clock} clock{_note(run, view)}:\n{_fact(run)}", loc="left", fontsize=10
    )


def _place(span: Span) -> tuple[int, str, str]:
    return span.rank, _lane(span.stream), kind(span.instruction)


def _lane(stream: str) -> str:
    return SENDS if stream.startswith("to ") else stream


def _lanes(spans: Sequence[Span]) -> dict[str, tuple[float, float]]:
    """For each stream, where its bars stand within the row of a rank: bottom and height, as parts of the row."""
    others = sorted({_lane(span.stream) for span in spans} - {COMPUTE})
    top = 0.56 if others else 0.84
    thin = 0.28 / max(1, len(others))
    return {COMPUTE: (0.08, top)} | {name: (0.66 + i * thin, 0.88 * thin) for i, name in enumerate(others)}


def _print_microbatches(
    ax: Axes, spans: Sequence[Span], bars: Sequence[tuple[float, float]], y: float, points: float
) -> None:
    """Print the microbatch into every bar that is wide enough, at ``points`` per unit of time."""
    for span, (start, length) in zip(spans, bars, strict=True):
        number = span.instruction.rpartition(" mb")[2]
        if number.isdigit() and length * points > 4 + 5 * len(number):
            ax.text(start + length / 2, y, number, ha="center", va="center", fontsize=7, clip_on=True)


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


def _legend(ax: Axes, spans: Sequence[Span], below: bool) -> None:
    seen = {kind(span.instruction) for span in spans}
    names = {colour: [name for name in types if name in seen] for colour, types in GROUPS.values()}
    names[OTHER] = sorted(seen - set(COLOURS))
    patches = [Patch(color=colour, label=", ".join(types)) for colour, types in names.items() if types]
    if below:
        figure = ax.get_figure(root=True)
        figure.legend(handles=patches, loc="outside lower center", ncols=9, frameon=False, fontsize=8)  # type: ignore[union-attr]
    else:
        ax.legend(handles=patches, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)


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
