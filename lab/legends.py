"""Colours of instructions, and the legends that explain them.

Colours are those of Okabe and Ito (2008), "Color Universal Design": people with any colour vision tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.transforms import ScaledTranslation

from .bars import WAITING, Bar
from .drawing import points

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

SAID = {
    "ForwardPart": "Forward",
    "BackwardPart": "Backward",
    "BackwardInput": "Backward (inputs)",
    "BackwardWeight": "Backward (weights)",
}
"""What a legend calls a type whose own name says how a program is made, not what it is for."""

OTHER = "#8C8C8C"
COLOURS = {name: colour for colour, names in GROUPS.values() for name in names}


def of_figure(ax: Axes, drawn: Sequence[Bar]) -> None:
    """Below all axes of a figure that makes room for it."""
    figure: Any = ax.get_figure(root=True)
    figure.legend(handles=_patches(drawn), loc="outside lower center", ncols=9, frameon=False, fontsize=8)


def below(ax: Axes, drawn: Sequence[Bar]) -> None:
    """Below the axes, which make room for it where the figure makes none."""
    patches = _patches(drawn)
    columns = max(1, min(len(patches), int(points(ax) / COLUMN)))
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
    said = {colour: dict.fromkeys(SAID.get(name, name) for name in types) for colour, types in names.items()}
    return [Patch(color=colour, label=", ".join(words)) for colour, words in said.items() if words]
