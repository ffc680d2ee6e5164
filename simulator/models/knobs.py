"""Models anew: with another batch, dtype or recomputation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .. import checks
from ..clusters.device import dtype_name
from ..model import Block, Model
from ..operations import Operations, held_width
from ..precision import in_width
from .chains import Chain
from .transformer import RECOMPUTE, Transformer


def with_knobs(model: Model, batch: int | None = None, dtype: str | None = None, recompute: str | None = None) -> Model:
    """The same model with another global ``batch`` [samples], ``dtype`` or ``recompute``; None: as it is.

    A model without a recipe, such as one given by its times, can recompute all or nothing: it then keeps only what
    enters each block, and its backward passes begin with their forward passes. In another dtype, all that a model of
    operations reads, writes and keeps grows or shrinks alike; times belong to one dtype.

    Raises ValueError when the model cannot.

    >>> from simulator import model
    >>> small = with_knobs(model("gpt2-small"), batch=8, recompute="full")
    >>> small.batch, small.hardware_flops > small.model_flops
    (8, True)
    """
    checks.kind("model", model, Model, 'a Model, such as sim.model("gpt2-small")')
    asked: dict[str, Any] = dict(dtype=dtype, recompute=recompute)
    changes = {name: value for name, value in asked.items() if value is not None}
    if recompute is not None and recompute not in RECOMPUTE:
        raise ValueError(f"recompute is one of {', '.join(map(repr, RECOMPUTE))}; got {recompute!r}")
    if changes and isinstance(model.recipe, (Transformer, Chain)):
        model = replace(model.recipe, batch=model.batch, **changes).model()
    elif changes:
        model = _by_hand(model, dtype, recompute)
    return model if batch is None else model.with_batch(batch)


def blocks_in(model: Model, dtype: str) -> tuple[Block, ...] | None:
    """The blocks of a model with numbers of another ``dtype``; None where its recipe does not tell what they are.

    >>> from simulator import transformer
    >>> small = dict(layers=2, hidden=64, heads=2, sequence=16, vocab=100)
    >>> blocks_in(transformer(**small, dtype="fp32"), "bf16") == transformer(**small, dtype="bf16").blocks
    True
    """
    recipe = model.recipe
    if not isinstance(recipe, (Transformer, Chain)):
        return None
    if recipe.dtype == dtype:
        return model.blocks
    return replace(recipe, dtype=dtype).model().blocks if recipe.model().blocks == model.blocks else None


def _by_hand(model: Model, dtype: str | None, recompute: str | None) -> Model:
    if dtype is not None:
        model = _in_dtype(model, dtype_name(dtype))
    if recompute is None:
        return model
    if recompute == "selective":
        raise ValueError(f"selective recomputation is of attention, which {model.name} does not know of: use 'full'")
    return replace(model, blocks=tuple(_recomputing(block, recompute == "full") for block in model.blocks))


def _in_dtype(model: Model, dtype: str) -> Model:
    """A model of operations, such as that of a torch module, with numbers of another width."""
    works = [work for block in model.blocks for work in (block.forward, block.backward)]
    said = {work.dtype if isinstance(work, Operations) else None for work in works}
    own = said.pop()
    if said or own is None:
        raise ValueError(
            f"{model.name} has times or sizes of its own, which belong to one dtype; got dtype={dtype!r}: leave it out,"
            " or make the model of operations, as transformer and Model.from_torch do"
        )
    blocks = in_width(model, dtype, held_width(dtype) / held_width(own))
    return model if own == dtype else replace(model, blocks=blocks, parameter_bytes=held_width(dtype))


def _recomputing(block: Block, full: bool) -> Block:
    if full == block.recomputes:
        return block
    if not full:
        raise ValueError("what a block keeps without recomputation is not known any more: use the model as it was")
    return replace(block, recomputes=True, saved_bytes=block.input_bytes)
