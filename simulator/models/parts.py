"""The parts of a transformer's blocks as operations: what each computes, moves and keeps, for one sample.

Sizes that ranks split with the units of a part (heads, hidden units, letters) are told apart from those that they do
not: of a layer, with two bytes a number, s·h·(10 + 24/t + 5·a·s/(h·t)) bytes are kept on each of t ranks
(Korthikanti et al. 2022, arXiv:2205.05198). See ``attention`` and ``perceptrons`` for what stands between these.

In fp8 are the products with matrices of layers alone; attention, gates, scores for letters, and all that passes between
products stay in bf16 (DeepSeek-AI 2024, arXiv:2412.19437, section 3.3; NVIDIA's Transformer Engine). Products read
copies in fp8: a norm writes them at once, elsewhere casting is a kernel of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model import Part
from ..operations import MatMul, Stream, gradients

if TYPE_CHECKING:
    from .transformer import Transformer

IDENTIFIER = 8
"""Bytes of a token's number."""
FLOAT = 4
"""Bytes of what the loss is computed in."""


def norm(knobs: Transformer, parameters: int) -> Part:
    """A LayerNorm or an RMSNorm."""
    size = knobs.act_bytes
    return Part(
        forward=knobs.work(Stream(2 * size)),
        backward=knobs.work(Stream(3 * size)),
        output_bytes=size,
        parameters=parameters,
        saved_bytes=size,
    )


def add(knobs: Transformer, at: int) -> Part:
    """Dropout, and the residual connection from what entered part ``at``; backward two gradients are added up."""
    numbers, w = knobs.sequence * knobs.hidden, knobs.width
    mask = 1 if knobs.dropout else 0
    return Part(
        forward=knobs.work(Stream((3 * w + mask) * numbers)),
        backward=knobs.work(Stream((3 * w + mask * (2 * w + 1)) * numbers)),
        output_bytes=knobs.act_bytes,
        adds=at,
        saved_bytes=float(mask * numbers),
    )


def lookup(knobs: Transformer) -> Part:
    """The vectors of tokens, and of their places where these are learned."""
    s, h, w = knobs.sequence, knobs.hidden, knobs.width
    places = knobs.positions == "learned"
    drop = (Stream((2 * w + 1) * s * h),) if knobs.dropout else ()
    return Part(
        forward=knobs.work(Stream((4 if places else 2) * knobs.act_bytes, 2 if places else 1), *drop),
        backward=knobs.work(*drop, Stream(3 * knobs.act_bytes)),
        output_bytes=knobs.act_bytes,
        parameters=(2 * h + knobs.normed(h)) * knobs.pooled,
        units=((knobs.vocab, h), *(((h, s),) if places else ())),
        sums=True,
        saved_bytes=float(IDENTIFIER * s + (s * h if knobs.dropout else 0)),
    )


def pool(knobs: Transformer) -> Part:
    """A product of the first token and a square matrix."""
    h, w = knobs.hidden, knobs.width
    product = MatMul(1, h, h, dtype=knobs.wide)
    return Part(
        forward=knobs.work(product),
        backward=knobs.work(*gradients([product])),
        output_bytes=h * w,
        units=((h, h + 1),),
        shares=True,
        sums=True,
        saved_bytes=h * w,
    )


def score(knobs: Transformer) -> Part:
    """A score for every letter of the vocabulary, and the cross-entropy.

    Ranks split the letters and tell each other three numbers a token: maximum, sum, and the target's score.
    """
    s, w = knobs.sequence, knobs.width
    product, scores = MatMul(s, knobs.vocab, knobs.hidden, dtype=knobs.wide), s * knobs.vocab
    return Part(
        forward=knobs.work(product, Stream((w + 5 * FLOAT) * scores, kernels=4)),
        backward=knobs.work(Stream((w + 3 * FLOAT) * scores, kernels=2), *gradients([product])),
        output_bytes=3 * FLOAT * s,
        units=((knobs.vocab, 0 if knobs.tied else knobs.hidden),),
        shares=True,
        sums=True,
        saved_bytes=knobs.act_bytes,
        saved_units=float(FLOAT * scores),
    )
