"""The parts of a transformer's blocks as operations: what each computes, moves and keeps, for one sample.

Sizes that ranks split with the units of a part (heads, hidden units, letters) are told apart from those that they do
not: of a layer, with two bytes a number, s·h·(10 + 24/t + 5·a·s/(h·t)) bytes are kept on each of t ranks
(Korthikanti et al. 2022, arXiv:2205.05198).

In fp8 are the products with matrices of layers alone; attention, gates, scores for letters, and all that passes between
products stay in bf16 (DeepSeek-AI 2024, arXiv:2412.19437, section 3.3; NVIDIA's Transformer Engine). Products read
copies in fp8: a norm writes them at once, elsewhere casting is a kernel of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..model import Part
from ..operations import MatMul, Operations, Stream, gradients

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
        forward=_work(knobs, Stream(2 * size)),
        backward=_work(knobs, Stream(3 * size)),
        output_bytes=size,
        parameters=parameters,
        saved_bytes=size,
    )


def read(knobs: Transformer) -> Part:
    """Queries, keys and values; ``rotary`` positions turn the first two."""
    s, h, w = knobs.sequence, knobs.hidden, knobs.width
    columns = h + 2 * knobs.kv_width
    product = MatMul(s, columns, h)
    turn = (Stream(2 * s * (h + knobs.kv_width) * w),) if knobs.positions == "rotary" else ()
    return Part(
        forward=_work(knobs, product, *turn),
        backward=_work(knobs, *turn, Stream(2 * s * columns * w), *knobs.casts(s * columns), *gradients([product])),
        output_bytes=s * columns * w,
        units=knobs.by_head(h + knobs.biased, queries=1, keys=2),
        shares=True,
        saved_bytes=float(s * h * knobs.kept),
    )


def mix(knobs: Transformer) -> Part:
    """Attention itself: scores, their softmax and dropout, and the values they choose. ``flash``: tile by tile."""
    s, w, flash = knobs.sequence, knobs.width, bool(knobs.flash)
    width = knobs.hidden / knobs.heads
    skipped = 0.5 if flash and knobs.causal else 0.0
    score = MatMul(s, s, width, knobs.heads, "count", "m", "count", skipped, knobs.flash, knobs.wide)
    value = MatMul(s, width, s, knobs.heads, "count", "m", "count", skipped, knobs.flash, knobs.wide)
    squares, copy = knobs.heads * s * s, Stream(2 * knobs.act_bytes)
    drop = (Stream((2 * w + 1) * squares),) if knobs.dropout else ()
    softmax = Stream((1.5 if knobs.causal else 2) * w * squares)
    between, back = (softmax, *drop), (*drop, Stream(3 * w * squares))
    forward = _work(knobs, score, *(() if flash else between), value, copy)
    again = (score,) if flash else forward.ops if knobs.recompute == "selective" else ()
    between_bytes = 0 if flash else (w + (w + 1 if knobs.dropout else 0)) * squares
    selective = knobs.recompute == "selective"
    return Part(
        forward=forward,
        backward=_work(knobs, *again, copy, *gradients([score, value]), *(() if flash else back)),
        output_bytes=knobs.act_bytes,
        mixes=True,
        causal=knobs.causal,
        saved_bytes=0.0,
        saved_units=s * (knobs.hidden + 2 * knobs.kv_width) * w + (0 if selective else between_bytes),
        again_bytes=float(between_bytes if selective else 0),
    )


def write(knobs: Transformer) -> Part:
    """What the heads found, added up."""
    product, numbers = MatMul(knobs.sequence, knobs.hidden, knobs.hidden, units="k"), knobs.sequence * knobs.hidden
    bias, cast = ((knobs.hidden, 1),) if knobs.biased else (), knobs.casts(numbers)
    return Part(
        forward=_work(knobs, *cast, product),
        backward=_work(knobs, *cast, *gradients([product])),
        output_bytes=knobs.act_bytes,
        units=(*knobs.by_head(knobs.hidden, queries=1), *bias),
        sums=True,
        saved_bytes=0.0,
        saved_units=knobs.act_bytes + (numbers * knobs.kept if cast else 0),  # attention keeps it too, in bf16
    )


def add(knobs: Transformer, at: int) -> Part:
    """Dropout, and the residual connection from what entered part ``at``; backward two gradients are added up."""
    numbers, w = knobs.sequence * knobs.hidden, knobs.width
    mask = 1 if knobs.dropout else 0
    return Part(
        forward=_work(knobs, Stream((3 * w + mask) * numbers)),
        backward=_work(knobs, Stream((3 * w + mask * (2 * w + 1)) * numbers)),
        output_bytes=knobs.act_bytes,
        adds=at,
        saved_bytes=float(mask * numbers),
    )


def think(knobs: Transformer) -> Part:
    """The perceptron: two products around a GELU, or three around a gate."""
    s, h, f, w = knobs.sequence, knobs.hidden, knobs.thinking, knobs.width
    ups = 2 if knobs.gated else 1
    up, down = MatMul(s, ups * f, h), MatMul(s, h, f, units="k")
    bias = ((h, 1),) if knobs.biased else ()
    between, back = Stream((ups + 1) * s * f * w), Stream((2 * ups + 1) * s * f * w)
    return Part(
        forward=_work(knobs, up, between, *knobs.casts(s * f), down),
        backward=_work(
            knobs, *knobs.casts(s * h), *gradients([down]), back, *knobs.casts(ups * s * f), *gradients([up])
        ),
        output_bytes=knobs.act_bytes,
        units=((f, ups * (h + knobs.biased) + h), *bias),
        shares=True,
        sums=True,
        saved_bytes=float(s * h * knobs.kept),
        saved_units=float(s * f * (ups * w + knobs.kept)),
    )


def mixture(knobs: Transformer) -> tuple[Part, Part, Part]:
    """A gate that chooses experts for every token, the experts, and the sum of what they gave."""
    s, h, f, w = knobs.sequence, knobs.hidden, knobs.thinking, knobs.width
    ups, rows = 2 if knobs.gated else 1, s * knobs.top
    choose = MatMul(s, knobs.experts, h, dtype=knobs.wide)
    moved = Stream(knobs.act_bytes + rows * h * w)
    mean = rows / knobs.experts
    up, down = MatMul(mean, ups * f, h, knobs.experts), MatMul(mean, h, f, knobs.experts)
    between, back = Stream((ups + 1) * rows * f * w), Stream((2 * ups + 1) * rows * f * w)
    gate = Part(
        forward=_work(knobs, choose, moved),
        backward=_work(knobs, moved, *gradients([choose])),
        output_bytes=rows * h * w,
        parameters=h * knobs.experts,
        routes=True,
        routing=knobs.routing,
        saved_bytes=knobs.act_bytes,
    )
    experts = Part(
        forward=_work(knobs, *knobs.casts(rows * h), up, between, *knobs.casts(rows * f), down),
        backward=_work(
            knobs, *knobs.casts(rows * h), *gradients([down]), back, *knobs.casts(ups * rows * f), *gradients([up])
        ),
        output_bytes=rows * h * w,
        units=((knobs.experts, f * (ups * (h + knobs.biased) + h) + knobs.biased * h),),
        experts=True,
        saved_bytes=float(rows * ((h + f) * knobs.kept + ups * f * w)),
    )
    gather = Part(
        forward=_work(knobs, moved),
        backward=_work(knobs, moved),
        output_bytes=knobs.act_bytes,
        saved_bytes=float(rows * w),
    )
    return gate, experts, gather


def lookup(knobs: Transformer) -> Part:
    """The vectors of tokens, and of their places where these are learned."""
    s, h, w = knobs.sequence, knobs.hidden, knobs.width
    places = knobs.positions == "learned"
    drop = (Stream((2 * w + 1) * s * h),) if knobs.dropout else ()
    return Part(
        forward=_work(knobs, Stream((4 if places else 2) * knobs.act_bytes, 2 if places else 1), *drop),
        backward=_work(knobs, *drop, Stream(3 * knobs.act_bytes)),
        output_bytes=knobs.act_bytes,
        parameters=(2 * h + knobs.norm_parameters) * knobs.pooled,
        units=((knobs.vocab, h), *(((h, s),) if places else ())),
        sums=True,
        saved_bytes=float(IDENTIFIER * s + (s * h if knobs.dropout else 0)),
    )


def pool(knobs: Transformer) -> Part:
    """A product of the first token and a square matrix."""
    h, w = knobs.hidden, knobs.width
    product = MatMul(1, h, h, dtype=knobs.wide)
    return Part(
        forward=_work(knobs, product),
        backward=_work(knobs, *gradients([product])),
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
        forward=_work(knobs, product, Stream((w + 5 * FLOAT) * scores, kernels=4)),
        backward=_work(knobs, Stream((w + 3 * FLOAT) * scores, kernels=2), *gradients([product])),
        output_bytes=3 * FLOAT * s,
        units=((knobs.vocab, 0 if knobs.tied else knobs.hidden),),
        shares=True,
        sums=True,
        saved_bytes=knobs.act_bytes,
        saved_units=float(FLOAT * scores),
    )


def _work(knobs: Transformer, *ops: MatMul | Stream) -> Operations:
    return Operations(ops, knobs.dtype)
