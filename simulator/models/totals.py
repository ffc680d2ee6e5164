"""Published models of which only totals are known, from their rows."""

from __future__ import annotations

from ..model import Model
from .chains import Chain
from .footprint import of_layers
from .rows import Row, flops, rows, shape, whole
from .transformer import Transformer

BLOCKS = 16
"""Into how many blocks an image or video network is cut."""
CONVOLUTIONS = 3
"""Of a block, each of which gives as many numbers as pass to the next block."""
LOOKED_UP = 26
"""Tables of Criteo's click logs, of each of which a sample looks up one row."""


def encoder_decoder(row: Row) -> Model:
    """As many tokens enter the encoder as leave the decoder, which is half of the layers.

    Products as wide as the model, tokens as rows; what they keep and move is that of its layers.
    """
    knobs = Transformer(**shape(row), ffn=whole(row, "ffn"), causal=False, bias=False, norm="rms")
    tokens, hidden, blocks = knobs.sequence, knobs.hidden, knobs.layers
    forward = flops(row) * tokens
    numbers, moves = of_layers(knobs, whole(row, "head_width"), crossing=blocks // 2)
    return Chain(
        name=row["name"],
        blocks=blocks,
        parameters=whole(row, "parameters"),
        forward=forward,
        shape=(forward / blocks / (2 * tokens * hidden), hidden),
        activations=numbers,
        entering=8.0 * tokens,
        passing=float(tokens * hidden),
        saved=1,
        moves=moves,
        tokens=tokens,
    ).model()


def convolutions(row: Row) -> Model:
    """Even blocks, whose activations are published or estimated."""
    activations = _activations(row)
    return Chain(
        name=row["name"],
        blocks=BLOCKS,
        parameters=whole(row, "parameters"),
        forward=flops(row),
        activations=activations,
        entering=4.0 * whole(row, "input_numbers_per_sample"),
        passing=activations / BLOCKS / CONVOLUTIONS,
    ).model()


def _activations(row: Row) -> float:
    """Numbers that convolutions give; an estimate where the row says whom it is like, for as many a FLOP."""
    if not row["like"]:
        return float(row["activations_per_sample"])
    like = rows()[row["like"]]
    return float(like["activations_per_sample"]) * flops(row) / flops(like)


def tables(row: Row) -> Model:
    """Tables, and the perceptrons that read them: what is active are these and the rows looked up."""
    entries = LOOKED_UP * whole(row, "hidden")
    dense = whole(row, "active_parameters") - entries
    return Chain(
        name=row["name"],
        blocks=1,
        parameters=dense,
        forward=flops(row),
        shape=(dense / 1024, 1024),
        entering=4.0 * whole(row, "input_numbers_per_sample"),
        passing=float(entries),
        table=whole(row, "parameters") - dense,
        entries=entries,
    ).model()
