"""What transformers keep and move of which only totals of parameters and FLOP are published: from their layers."""

from __future__ import annotations

from dataclasses import replace

from ..model import Part
from ..operations import Operations, Stream
from .attention import mix, read, write
from .parts import add, norm, score
from .perceptrons import think
from .transformer import Transformer


def of_layers(knobs: Transformer, head_width: int, crossing: int = 0) -> tuple[float, float]:
    """Numbers that a sample keeps for its backward pass, and how often each of them is read or written by a pass.

    They are those of the layers that ``transformer`` has, 34·s·h + 5·a·s² bytes where heads share out ``hidden``
    (Korthikanti et al. 2022, arXiv:2205.05198), with two changes:

    - ``head_width``: columns of a head; a·``head_width`` need not be ``hidden``.
    - ``crossing``: how many layers have a second attention, to what an encoder gave.

    A mask's byte counts as a part of a number. Raises ValueError for knobs that make no transformer.

    >>> numbers, moves = of_layers(Transformer(layers=96, hidden=12288, heads=96, sequence=2048, vocab=1), 128)
    >>> round(2 * numbers / 1e9, 1)
    275.5
    """
    wide = replace(knobs, hidden=knobs.heads * head_width)
    queries = replace(read(wide), saved_bytes=read(knobs).saved_bytes)  # of the heads' width is only what leaves it
    attention = norm(knobs, 0), queries, mix(wide), write(wide), add(knobs, 0)
    layer = *attention, norm(knobs, 0), think(knobs), add(knobs, 5)
    parts = (*knobs.layers * layer, *crossing * attention, norm(knobs, 0), score(knobs))
    kept = sum((part.saved_bytes or 0.0) + part.saved_units for part in parts)
    return kept / knobs.width, sum(map(_moved, parts)) / 2 / kept


def _moved(part: Part) -> float:
    """Bytes that its two passes read and write outside of products."""
    works = [work for work in (part.forward, part.backward) if isinstance(work, Operations)]
    return sum(op.bytes for work in works for op in work.ops if isinstance(op, Stream))
