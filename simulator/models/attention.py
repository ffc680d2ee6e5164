"""Attention in parts: queries, keys and values; attention itself; and the sum of what its heads found.

Latent attention makes queries, keys and values from a few numbers that each token has for all heads (DeepSeek-AI 2024,
arXiv:2405.04434): the product that gives these numbers has no units, so ranks that share heads all compute it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from .. import checks
from ..model import Part
from ..operations import MatMul, Stream, gradients

if TYPE_CHECKING:
    from .transformer import Transformer


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention: what heads ask and answer is made from a few numbers of each token.

        queries = norm(x·A)·B,    keys, values = norm(x·C)·D        (DeepSeek-AI 2024, arXiv:2405.04434, section 2.1)

    - ``queries``, ``keys``: columns of A and of C: what a token has for queries, and for keys and values.
    - ``width``: columns of each head's values, and of its queries and keys without positions.
    - ``rotary``: further columns of queries and keys, which positions turn; those of keys all heads have in common.

    Raises ValueError unless all are whole numbers from 1, ``rotary`` from 0.

    >>> Latent(queries=1536, keys=512, width=128, rotary=64).pair
    192
    """

    queries: int
    keys: int
    width: int
    rotary: int = 0

    def __post_init__(self) -> None:
        checks.owned(self)
        for knob in fields(self):
            checks.whole(knob.name, getattr(self, knob.name), least=int(knob.name != "rotary"), of="of a Latent")

    @property
    def pair(self) -> int:
        """Columns in which a query meets a key."""
        return self.width + self.rotary


def attention(knobs: Transformer) -> tuple[Part, ...]:
    """All of it, between a norm and a residual connection."""
    given = (read(knobs),) if knobs.latent is None else (squeeze(knobs, knobs.latent), spread(knobs, knobs.latent))
    return *given, mix(knobs), write(knobs)


def read(knobs: Transformer) -> Part:
    """Queries, keys and values; ``rotary`` positions turn the first two."""
    s, h, w = knobs.sequence, knobs.hidden, knobs.width
    columns = knobs.read_width
    product = MatMul(s, columns, h)
    turn = (Stream(2 * s * (h + knobs.kv_width) * w),) if knobs.positions == "rotary" else ()
    return Part(
        forward=knobs.work(product, *turn),
        backward=knobs.work(*turn, Stream(2 * s * columns * w), *knobs.casts(s * columns), *gradients([product])),
        output_bytes=s * columns * w,
        units=knobs.by_head(h + knobs.biased, queries=1, keys=2),
        shares=True,
        saved_bytes=float(s * h * knobs.kept),
    )


def squeeze(knobs: Transformer, latent: Latent) -> Part:
    """The few numbers of each token, with their norms, and the columns of keys that positions turn."""
    s, h, w, few = knobs.sequence, knobs.hidden, knobs.width, latent.queries + latent.keys
    columns = few + latent.rotary
    product = MatMul(s, columns, h)
    return Part(
        forward=knobs.work(product, Stream(2 * s * columns * w)),
        backward=knobs.work(Stream(3 * s * columns * w), *knobs.casts(s * columns), *gradients([product])),
        output_bytes=s * columns * w,
        parameters=(h + knobs.biased) * columns + knobs.normed(few),
        saved_bytes=float(s * (h * knobs.kept + few * w)),
    )


def spread(knobs: Transformer, latent: Latent) -> Part:
    """Queries, keys and values of every head, from the few numbers of each token."""
    s, w, heads = knobs.sequence, knobs.width, knobs.heads
    columns, others = latent.pair, 2 * latent.width
    products, moved = _spread(knobs, latent)
    back = gradients(products)
    return Part(
        forward=knobs.work(*products, moved),
        backward=knobs.work(moved, *knobs.casts(s * heads * (columns + others)), *back),
        output_bytes=s * knobs.read_width * w,
        units=((heads, (latent.queries + knobs.biased) * columns + (latent.keys + knobs.biased) * others),),
        shares=True,
        saved_bytes=float(s * (latent.queries + latent.keys) * knobs.kept),
    )


def _spread(knobs: Transformer, latent: Latent) -> tuple[tuple[MatMul, MatMul], Stream]:
    """Its products; and the bytes of queries that are turned, and of keys that are put together from two pieces."""
    s, heads = knobs.sequence, knobs.heads
    queries = MatMul(s, heads * latent.pair, latent.queries)
    others = MatMul(s, heads * 2 * latent.width, latent.keys)
    return (queries, others), Stream((2 * latent.width + 3 * latent.rotary) * s * heads * knobs.width, kernels=2)


def mix(knobs: Transformer) -> Part:
    """Attention itself: scores, their softmax and dropout, and the values they choose. ``flash``: tile by tile.

    With selective recomputation scores are made again, and latent attention's queries, keys and values too.
    """
    s, w, flash, selective = knobs.sequence, knobs.width, bool(knobs.flash), knobs.recompute == "selective"
    pair, width = knobs.head_columns
    skipped = 0.5 if flash and knobs.causal else 0.0
    score = MatMul(s, s, pair, knobs.heads, "count", "m", "count", skipped, knobs.flash, knobs.wide)
    value = MatMul(s, width, s, knobs.heads, "count", "m", "count", skipped, knobs.flash, knobs.wide)
    squares, copy = knobs.heads * s * s, Stream(2 * s * knobs.found_width * w)
    drop = (Stream((2 * w + 1) * squares),) if knobs.dropout else ()
    softmax = Stream((1.5 if knobs.causal else 2) * w * squares)
    between, back = (softmax, *drop), (*drop, Stream(3 * w * squares))
    forward = knobs.work(score, *(() if flash else between), value, copy)
    again = (score,) if flash else forward.ops if selective else ()
    entering = s * knobs.read_width * w
    between_bytes = 0 if flash else (w + (w + 1 if knobs.dropout else 0)) * squares
    lost = between_bytes if selective else 0
    if selective and knobs.latent is not None:
        products, moved = _spread(knobs, knobs.latent)
        again, lost = (*products, moved, *again), lost + entering
    return Part(
        forward=forward,
        backward=knobs.work(*again, copy, *gradients([score, value]), *(() if flash else back)),
        output_bytes=s * knobs.found_width * w,
        mixes=True,
        causal=knobs.causal,
        saved_bytes=0.0,
        saved_units=entering + between_bytes - lost,
        again_bytes=float(lost),
    )


def write(knobs: Transformer) -> Part:
    """What the heads found, added up."""
    s, h, found, w = knobs.sequence, knobs.hidden, knobs.found_width, knobs.width
    product = MatMul(s, h, found, units="k")
    bias, cast = ((h, 1),) if knobs.biased else (), knobs.casts(s * found)
    return Part(
        forward=knobs.work(*cast, product),
        backward=knobs.work(*knobs.casts(s * h), *gradients([product])),
        output_bytes=knobs.act_bytes,
        units=(*knobs.by_head(h, queries=1), *bias),
        sums=True,
        saved_bytes=0.0,
        saved_units=s * found * (w + (knobs.kept if cast else 0)),  # attention keeps it too, in bf16
    )
