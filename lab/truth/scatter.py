"""Predicted over measured times, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .rows import Row

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKS = "os^"


def scatter(rows: Sequence[Row], predicted: Sequence[float], title: str, path: Path, unit: str = "s") -> None:
    """One mark for each row, by its model; on the line a prediction is right, between the dashes within 10 %."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    models = list(dict.fromkeys(row.model for row in rows))
    many = len(models) > len(COLOURS)  # too many for names inside of the picture
    axes = (figure := Figure(figsize=(7 if many else 5, 5), layout="constrained")).subplots()
    for number, model in enumerate(models):
        mine = [at for at, row in enumerate(rows) if row.model == model]
        axes.scatter(
            [rows[at].measured for at in mine], [predicted[at] for at in mine], s=14,
            color=COLOURS[number % len(COLOURS)], marker=MARKS[number // len(COLOURS) % len(MARKS)], label=model,
        )  # fmt: skip
    both = [*predicted, *(row.measured for row in rows)]
    ends = [min(both) * 0.8, max(both) * 1.25]
    for factor, style in ((1.0, "-"), (0.9, "--"), (1.1, "--")):
        axes.plot(ends, [end * factor for end in ends], style, color="#888888", linewidth=0.8, zorder=0)
    names = {"xlabel": f"measured [{unit}]", "ylabel": f"predicted [{unit}]"}
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, **names)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda seconds, place: f"{seconds:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_title(title, loc="left", fontsize=10)
    if many:
        figure.legend(fontsize=7, loc="outside right upper")
    else:
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=100, metadata={"Software": None})
