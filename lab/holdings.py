"""Memory over time: what each rank holds, by kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulator import checks, metrics
from simulator.cluster import Device
from simulator.footprint import Footprint
from simulator.memory import RankMemory, read
from simulator.run import Run

from .drawing import name_picture, unit_of
from .shown import wanted_steps

MOST = 8
"""Ranks whose memory is drawn, unless told."""
KINDS = {
    "parameters": "#0072B2",
    "optimizer": "#56B4E9",
    "gradients": "#E69F00",
    "activations": "#009E73",
    "buffers": "#CC79A7",
}
"""From below: what stays, and above it what comes and goes. The colours are those of Okabe and Ito (2008)."""
UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
NEAR = 2.0
"""What a device has is drawn where that is at most so many times what is held."""
WORTH = 0.02
"""Of what is held, the share that is worth a word."""
HELD = "a Run, or what simulator.memory(strategy, workload, ranks) gives"


@dataclass(frozen=True)
class Row:
    """What one rank holds, and from when on; ``until`` when the last of it; ``device``: where, if that is known."""

    name: str
    since: list[float]
    held: list[Footprint]
    until: float
    device: Device | None = None

    @property
    def most(self) -> Footprint:
        """What is held when most is."""
        return max(self.held, key=lambda held: held.total)


def memory(
    held: Run | RankMemory | Sequence[RankMemory],
    ranks: Iterable[int] | None = None,
    steps: int | range | None = None,
) -> Figure:
    """Draw what ranks hold over time, one kind upon another: a row per rank.

    - ``held``: a Run of either clock, whose times are in seconds; or what ``sim.memory`` gives, one rank or all, whose
      time goes from instruction to instruction.
    - ``ranks``: which; None: at most eight of those that differ, evenly spread.
    - ``steps``: of a Run, how many to show, or which (``range(2, 4)``); all by default.

    In the first step optimizers remember nothing yet: simulate two to see all. A dashed line is what the device has,
    where that is not more than twice what is held. Raises ValueError for what is neither, ranks and steps that are not
    there, and runs whose program is not known before it runs.
    """
    if isinstance(held, Run):
        (rows, label), named = _of_run(held, ranks, steps), (held.strategy, f", {held.clock} clock:")
    else:
        rows, label, named = _of_text(held, ranks, steps), "instructions of two steps", ("Memory by kind", ":")
    most = max(row.most.total for row in rows)
    size, unit = _unit_of_bytes(most)
    shape = (10, max(2.9, 1.4 + 0.9 * len(rows)))
    figure, axes = plt.subplots(
        len(rows), sharex=True, sharey=True, squeeze=False, figsize=shape, layout="constrained"
    )
    for ax, row in zip(axes.flat, rows):
        _draw(ax, row, size, NEAR * most)
        ax.set_ylabel(f"{row.name}\n[{unit}]", rotation=0, ha="right", va="center")
    last = axes.flat[-1]
    last.set(xlabel=label, xlim=(0, max(row.until for row in rows) or 1), ylim=(0, None))
    name_picture(axes.flat[0], *named, _fact(rows))
    entries = {name: line for ax in axes.flat for line, name in zip(*ax.get_legend_handles_labels())}
    figure.legend(entries.values(), entries, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    return figure


def _draw(ax: Axes, row: Row, size: float, near: float) -> None:
    since, below = [*row.since, row.until], np.zeros(len(row.since) + 1)
    for kind, colour in KINDS.items():
        held = np.array([getattr(held, kind) / size for held in row.held])
        top = below + np.append(held, held[-1])
        ax.fill_between(since, below, top, step="post", color=colour, linewidth=0, label=kind)
        below = top
    room = row.device.memory if row.device is not None else None
    if row.device is not None and room and room <= near:
        ax.axhline(room / size, color="#000000", linestyle="--", linewidth=1, label=f"memory of {row.device.name}")
    ax.spines[["top", "right"]].set_visible(False)


def _fact(rows: Sequence[Row]) -> str:
    """Who holds most, and of what, the largest first."""
    fullest = max(rows, key=lambda row: row.most.total)
    most = fullest.most
    size, unit = _unit_of_bytes(most.total)
    kinds = sorted((getattr(most, kind), kind) for kind in KINDS if getattr(most, kind) > WORTH * most.total)
    parts = ", ".join(f"{kind} {held / size:.3g}" for held, kind in reversed(kinds))
    return f"{fullest.name} holds most, {most.total / size:.3g} {unit}: {parts}"


def _unit_of_bytes(most: float) -> tuple[float, str]:
    return next((pair for pair in UNITS if most >= pair[0]), UNITS[-1])


# ---------------------------------------------------------------- rows


def _of_run(run: Run, ranks: Iterable[int] | None, steps: int | range | None) -> tuple[list[Row], str]:
    """The rows of a run, and what its time is."""
    wanted = wanted_steps(run, steps)
    names = _names(read(metrics.text_of(run)), ranks)
    found = {rank: [held for held in metrics.memory_over_time(run, rank) if held.step in wanted] for rank in names}
    if not all(found.values()):
        raise ValueError(f"the run has steps 0 to {run.steps - 1}; got steps={steps}")
    first = min(held[0].step for held in found.values())
    origin, until = _extent(run, first, max(held[-1].step for held in found.values()))
    size, unit = unit_of(until - origin)
    devices = {rank: device for device, several in run.facts.fleet for rank in several}
    rows = [
        Row(
            names[rank],
            [max(0.0, held.start - origin) / size for held in several],
            [held.held for held in several],
            (until - origin) / size,
            devices.get(rank),
        )
        for rank, several in found.items()
    ]
    return rows, f"time{f' since step {first} began' if first else ''} [{unit}]"


def _extent(run: Run, first: int, last: int) -> tuple[float, float]:
    """When one step began and another one had ended [s]."""
    ends = metrics.step_ends(run)
    return ends[first - 1] if first else 0.0, ends[last] if last < run.steps - 1 else metrics.makespan(run)


def _of_text(held: object, ranks: Iterable[int] | None, steps: object) -> list[Row]:
    """The rows of what programs say, time being counted in instructions."""
    if steps is not None:
        raise ValueError(f"what memory says is of two steps; only a Run has steps; got steps={steps}")
    several = [held] if isinstance(held, RankMemory) else checks.several("held", held, HELD)
    for one in several:
        checks.kind("held", one, RankMemory, HELD)
    names = _names(several, ranks)
    moments = {name: several[rank].over_time for rank, name in names.items()}
    return [
        Row(name, [float(at) for at in range(len(those))], [moment.held for moment in those], float(len(those)))
        for name, those in moments.items()
    ]


def _names(held: Sequence[RankMemory], ranks: Iterable[int] | None) -> dict[int, str]:
    """The ranks that are drawn, and what they are called: with how many hold the same, where these are not told."""
    if not held:
        raise ValueError(f"held is {HELD}; got none")
    if ranks is not None:
        chosen = checks.several("ranks", ranks, "a list of ranks, such as range(4)")
        if not chosen:
            raise ValueError(f"ranks are 0 to {len(held) - 1}, one or more of them; got ranks=[]")
        for rank in chosen:
            if checks.whole("rank", rank) >= len(held):
                raise ValueError(f"ranks are 0 to {len(held) - 1}; got {rank} among ranks={chosen}")
        return {rank: f"rank {rank}" for rank in chosen}
    alike: dict[int, list[int]] = {}
    for rank, one in enumerate(held):
        alike.setdefault(id(one), []).append(rank)
    several = {same[0]: len(same) for same in alike.values()}
    firsts, count = list(several), min(MOST, len(several))
    drawn = [firsts[at * (len(firsts) - 1) // max(1, count - 1)] for at in range(count)]  # the last one too
    return {rank: f"rank {rank}" + f" ×{several[rank]}" * (several[rank] > 1) for rank in drawn}
