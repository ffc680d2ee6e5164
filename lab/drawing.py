"""What all pictures need: axes to draw into, titles that fit, and units that can be read."""

from __future__ import annotations

import textwrap

from matplotlib.axes import Axes

from simulator import checks

A_RUN = "a Run, as sim.simulate(…) and lab.execute(…) give it"
LETTER = 5.4
"""How wide a letter of a title is on average, in points."""


def require_axes(ax: object) -> None:
    """Raise ValueError unless there is something to draw into, or None."""
    checks.kind("ax", ax, (Axes, type(None)), "one Axes of matplotlib, such as plt.subplots()[1], or None")


def shortened(text: str, width: int) -> str:
    """At most ``width`` characters of a text, cut between words."""
    return textwrap.shorten(text, width, placeholder=" …")


def name_picture(ax: Axes, what: str, of: str, facts: str) -> None:
    """Say above a picture what it is of, on one line, and below that the facts, on as many as they need."""
    width = max(20, int(points(ax) / LETTER))
    lines = [part for line in facts.splitlines() for part in textwrap.wrap(line, width)]
    ax.set_title("\n".join([f"{shortened(what, width - len(of))}{of}", *lines]), loc="left", fontsize=10)


def points(ax: Axes) -> float:
    """How wide the axes are, in points, before they are laid out; a little less than in the end."""
    return ax.get_window_extent().width / ax.get_figure(root=True).dpi * 72  # type: ignore[union-attr]


def unit_of(seconds: float) -> tuple[float, str]:
    """The unit in which some seconds are read best: how many seconds it is, and its name."""
    units = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
    return next((pair for pair in units if seconds >= pair[0]), units[-1] if seconds else units[0])
