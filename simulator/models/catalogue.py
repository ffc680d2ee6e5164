"""Published models by name. Their shapes and totals are in ``catalogue.csv``, every row with its source.

Transformers are built from their shapes; of the others only totals are published. Image and video networks are often
listed with multiply-adds that are called FLOPs, though each is two: the file has ``forward_FLOP`` and ``forward_MAC``.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from ..model import Model
from .chains import Chain
from .knobs import with_knobs
from .transformer import Transformer

BLOCKS = 16
"""Into how many blocks an image or video network is cut."""
CONVOLUTIONS = 3
"""Of a block, each of which gives as many numbers as pass to the next block."""
LOOKED_UP = 26
"""Tables of Criteo's click logs, of each of which a sample looks up one row."""
Row = Mapping[str, str]


def models(family: str | None = None) -> list[str]:
    """The names that ``model`` knows, of one family or of all.

    Families: "language", "mixture of experts", "vision", "video", "recommendation".

    >>> models("mixture of experts")
    ['mixtral-8x7b', 'deepseek-v3']
    """
    families = list(dict.fromkeys(row["family"] for row in _rows().values()))
    if family is not None and family not in families:
        raise ValueError(f"family is one of {', '.join(map(repr, families))}; got {family!r}")
    return [key for key, row in _rows().items() if family in (None, row["family"])]


def model(name: str, batch: int = 1, dtype: str = "bf16", recompute: str = "none") -> Model:
    """A published model as operations, such as "gpt3-175b" or "resnet-50"; ``models()`` lists them all.

    - ``batch``: samples of a global batch; a sample is a sequence, an image, a clip or a click.
    - ``dtype``: of parameters, gradients and activations. ``recompute``: see ``transformer``.

    Capitals and punctuation do not matter. Raises ValueError for unknown names.

    >>> model("GPT-3 175B").parameters
    174604259328
    """
    key = _known().get(_bare(name)) if isinstance(name, str) else None
    if key is None:
        close = get_close_matches(_bare(str(name)), _known(), n=3, cutoff=0.5)
        hint = ", ".join(repr(_known()[one]) for one in close) or "models() lists them"
        raise ValueError(f"no model is called {name!r}; the names nearest to it: {hint}")
    return with_knobs(_made(key), batch, dtype, recompute)


def facts(name: str) -> Row:
    """What the catalogue says of a model: its row of the file. Raises KeyError for unknown names."""
    return _rows()[name]


@cache
def _made(key: str) -> Model:
    row = _rows()[key]
    return MAKERS[row["kind"]](row)


@cache
def _rows() -> dict[str, Row]:
    text = files(__package__).joinpath("catalogue.csv").read_text(encoding="utf-8")
    return {row["key"]: row for row in csv.DictReader(text.splitlines())}


@cache
def _known() -> dict[str, str]:
    return {_bare(key): key for key in _rows()}


def _bare(name: str) -> str:
    return re.sub("[^a-z0-9.]", "", name.lower())


def _whole(row: Row, name: str) -> int:
    return int(row[name]) if row[name] else 0


def _flops(row: Row) -> float:
    """FLOP of a forward pass, per unit that the row counts in."""
    return float(row["forward_FLOP"]) if row["forward_FLOP"] else 2 * float(row["forward_MAC"])


# ---------------------------------------------------------------- transformers


def _shape(row: Row) -> dict[str, Any]:
    names = {"sequence": "sequence_tokens", "vocab": "vocabulary"}
    return {name: _whole(row, names.get(name, name)) for name in ("layers", "hidden", "heads", "sequence", "vocab")}


def _gpt(row: Row) -> Model:
    return Transformer(**_shape(row), final_norm=True, name=row["name"]).model()


def _llama(row: Row) -> Model:
    more: dict[str, Any] = {name: _whole(row, name) for name in ("kv_heads", "ffn", "experts")}
    return Transformer(
        **_shape(row),
        **more,
        top=_whole(row, "top") or 1,
        gated=True,
        bias=False,
        norm="rms",
        positions="rotary",
        tied=False,
        final_norm=True,
        dropout=False,
        flash=True,
        name=row["name"],
    ).model()


def _bert(row: Row) -> Model:
    return Transformer(**_shape(row), causal=False, pooled=True, name=row["name"]).model()


# ---------------------------------------------------------------- models known by their totals


def _products(row: Row) -> Model:
    """Products as wide as the model, tokens as rows."""
    tokens, hidden, blocks = _whole(row, "sequence_tokens"), _whole(row, "hidden"), _whole(row, "layers")
    forward = _flops(row) * tokens
    columns = forward / blocks / (2 * tokens * hidden)
    parameters, passing = _whole(row, "parameters"), float(tokens * hidden)
    return Chain(row["name"], blocks, parameters, forward, (columns, hidden), None, 8.0 * tokens, passing).model()


def _convolutions(row: Row) -> Model:
    activations = float(row["activations_per_sample"]) if row["activations_per_sample"] else None
    passing = (activations or 0.0) / BLOCKS / CONVOLUTIONS
    entering = 4.0 * _whole(row, "input_numbers_per_sample")
    parameters = _whole(row, "parameters")
    return Chain(
        row["name"], BLOCKS, parameters, _flops(row), activations=activations, entering=entering, passing=passing
    ).model()


def _tables(row: Row) -> Model:
    """Tables, and the perceptrons that read them: what is active are these and the rows looked up."""
    entries = LOOKED_UP * _whole(row, "hidden")
    dense = _whole(row, "active_parameters") - entries
    return Chain(
        name=row["name"],
        blocks=1,
        parameters=dense,
        forward=_flops(row),
        shape=(dense / 1024, 1024),
        entering=4.0 * _whole(row, "input_numbers_per_sample"),
        passing=float(entries),
        table=_whole(row, "parameters") - dense,
        entries=entries,
    ).model()


MAKERS: dict[str, Callable[[Row], Model]] = {
    "gpt": _gpt,
    "llama": _llama,
    "bert": _bert,
    "products": _products,
    "convolutions": _convolutions,
    "tables": _tables,
}
