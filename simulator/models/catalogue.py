"""Published models by name. Their shapes and totals are in ``catalogue.csv``, every row with its source.

Transformers are built from their shapes; of the others only totals are published. Image and video networks are often
listed with multiply-adds that are called FLOPs, though each is two: the file has ``forward_FLOP`` and ``forward_MAC``.

Columns of transformers are sizes: ``heads`` of ``head_width`` columns (empty: they share out ``hidden``), ``kv_heads``
of which have keys of their own; ``ffn`` hidden units of a perceptron, or of each of ``experts``, of which a token uses
``top``. Beside these every token uses ``shared_experts``; ``gate_bias`` is 1 where a gate adds a number to the score of
each expert; ``dense_layers`` come first, each with one perceptron of ``dense_ffn`` instead. Latent attention keeps
``latent_queries`` and ``latent_keys`` numbers of a token, and adds ``rotary_width`` columns to queries and keys. What a
row leaves empty is unknown or does not apply; ``unconfirmed`` names columns that nobody checked.

The column ``activations`` tells how what a sample keeps is known: from the model's "shape"; "published"; "estimated",
as that of the image network in the column ``like``, in proportion to FLOP; or "unknown", where memory is of states.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from typing import Any

from ..model import Model
from . import totals
from .attention import Latent
from .knobs import with_knobs
from .rows import Row, rows, shape, whole
from .transformer import Transformer

ACTIVATIONS = ("shape", "published", "estimated", "unknown")


def models(family: str | None = None, activations: str | None = None) -> list[str]:
    """The names that ``model`` knows, of one family or of all.

    - ``family``: "language", "mixture of experts", "vision", "video", "recommendation".
    - ``activations``: only those whose activations follow from their "shape", are "published", "estimated" or
      "unknown". Estimates may be off by a factor of two; where they are unknown, memory is that of states alone.

    Raises ValueError for other families and kinds of knowledge.

    >>> models("mixture of experts"), models(activations="unknown")
    (['mixtral-8x7b', 'deepseek-v3'], ['dlrm-criteo-1tb'])
    """
    asked = {"family": family, "activations": activations}
    known = {"family": dict.fromkeys(row["family"] for row in rows().values()), "activations": ACTIVATIONS}
    for name, value in asked.items():
        if value is not None and value not in [*known[name]]:
            raise ValueError(f"{name} is one of {', '.join(map(repr, known[name]))}; got {value!r}")
    return [key for key, row in rows().items() if all(value in (None, row[name]) for name, value in asked.items())]


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
        hint = ", ".join(dict.fromkeys(repr(_known()[one]) for one in close)) or "models() lists them"
        raise ValueError(f"no model is called {name!r}; the names nearest to it: {hint}")
    return with_knobs(_made(key), batch, dtype, recompute)


def facts(name: str) -> Row:
    """What the catalogue says of a model: its row of the file. Raises KeyError for unknown names."""
    return rows()[name]


@cache
def _made(key: str) -> Model:
    row = rows()[key]
    return MAKERS[row["kind"]](row)


@cache
def _known() -> dict[str, str]:
    return {_bare(name): key for key, row in rows().items() for name in (key, row["name"])}


def _bare(name: str) -> str:
    return re.sub("[^a-z0-9.]", "", name.lower())


def _gpt(row: Row) -> Model:
    return Transformer(**shape(row), final_norm=True, name=row["name"]).model()


def _llama(row: Row) -> Model:
    """With gates and rotary positions; with experts and latent attention where a row has them."""
    return Transformer(
        **shape(row),
        **_mixture(row),
        ffn=whole(row, "ffn"),
        kv_heads=whole(row, "kv_heads") or None,
        latent=_latent(row),
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


def _mixture(row: Row) -> dict[str, Any]:
    names = {"experts": "experts", "shared": "shared_experts", "dense": "dense_layers"}
    found: dict[str, Any] = {knob: whole(row, name) for knob, name in names.items()}
    biased = bool(whole(row, "gate_bias"))
    return {**found, "top": whole(row, "top") or 1, "dense_ffn": whole(row, "dense_ffn") or None, "gate_bias": biased}


def _latent(row: Row) -> Latent | None:
    if not row["latent_keys"]:
        return None
    return Latent(*(whole(row, name) for name in ("latent_queries", "latent_keys", "head_width", "rotary_width")))


def _bert(row: Row) -> Model:
    return Transformer(**shape(row), causal=False, pooled=True, name=row["name"]).model()


MAKERS: dict[str, Callable[[Row], Model]] = {
    "gpt": _gpt,
    "llama": _llama,
    "bert": _bert,
    "encoder-decoder": totals.encoder_decoder,
    "convolutions": totals.convolutions,
    "tables": totals.tables,
}
