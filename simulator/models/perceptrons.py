"""Perceptrons in parts: one that every token uses, or a mixture of experts of which a gate chooses some.

Where experts are shared by all tokens as well (Dai et al. 2024, DeepSeekMoE, arXiv:2401.06066), these stand before the
gate, as one perceptron: the gate reads what entered them, and what they give is added where rows come back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..model import Part
from ..operations import MatMul, Stream, gradients

if TYPE_CHECKING:
    from .transformer import Transformer


def think(knobs: Transformer, hidden_units: int | None = None) -> Part:
    """The perceptron: two products around a GELU, or three around a gate."""
    s, h, w, ups = knobs.sequence, knobs.hidden, knobs.width, knobs.ups
    f = knobs.thinking if hidden_units is None else hidden_units
    up, down = MatMul(s, ups * f, h), MatMul(s, h, f, units="k")
    between, back = Stream((ups + 1) * s * f * w), Stream((2 * ups + 1) * s * f * w)
    return Part(
        forward=knobs.work(up, between, *knobs.casts(s * f), down),
        backward=knobs.work(
            *knobs.casts(s * h), *gradients([down]), back, *knobs.casts(ups * s * f), *gradients([up])
        ),
        output_bytes=knobs.act_bytes,
        units=_hidden_units(knobs, f),
        shares=True,
        sums=True,
        saved_bytes=float(s * h * knobs.kept),
        saved_units=float(s * f * (ups * w + knobs.kept)),
    )


def _hidden_units(knobs: Transformer, f: int) -> tuple[tuple[int, int], ...]:
    """What ranks split of a perceptron: hidden units, and the last bias by what it is added to."""
    bias = ((knobs.hidden, 1),) if knobs.biased else ()
    return ((f, knobs.ups * (knobs.hidden + knobs.biased) + knobs.hidden), *bias)


def mixture(knobs: Transformer, at: int) -> tuple[Part, ...]:
    """A gate that chooses experts for every token, the experts, and the sum of what they gave; from part ``at`` on.

    ``shared`` experts come first: the gate then reads what entered part ``at``, and the sum what entered the gate.
    """
    if not knobs.shared:
        return gate(knobs), experts(knobs), gather(knobs)
    always = think(knobs, knobs.shared * knobs.thinking)
    if not knobs.wide:  # the gate keeps what both read, which is the same unless only one of them reads it in fp8
        always = replace(always, saved_bytes=0.0)
    chosen, summed = replace(gate(knobs), adds=at), replace(gather(knobs), adds=at + 1)
    return always, chosen, experts(knobs), summed


def gate(knobs: Transformer) -> Part:
    """Scores of all experts for every token, which go to the best of them, each as a row of its own."""
    h, rows = knobs.hidden, knobs.rows
    choose = MatMul(knobs.sequence, knobs.experts, h, dtype=knobs.wide)
    return Part(
        forward=knobs.work(choose, _moved(knobs)),
        backward=knobs.work(_moved(knobs), *gradients([choose])),
        output_bytes=rows * h * knobs.width,
        parameters=(h + knobs.gate_bias) * knobs.experts,
        routes=True,
        routing=knobs.routing,
        saved_bytes=knobs.act_bytes,
    )


def experts(knobs: Transformer) -> Part:
    """Perceptrons, each of which has the rows that were sent to it."""
    h, f, w, ups, rows = knobs.hidden, knobs.thinking, knobs.width, knobs.ups, knobs.rows
    mean = rows / knobs.experts
    up, down = MatMul(mean, ups * f, h, knobs.experts), MatMul(mean, h, f, knobs.experts, units="k")
    between, back = Stream((ups + 1) * rows * f * w), Stream((2 * ups + 1) * rows * f * w)
    inside = _hidden_units(knobs, f)
    return Part(
        forward=knobs.work(*knobs.casts(rows * h), up, between, *knobs.casts(rows * f), down),
        backward=knobs.work(
            *knobs.casts(rows * h), *gradients([down]), back, *knobs.casts(ups * rows * f), *gradients([up])
        ),
        output_bytes=rows * h * w,
        units=((knobs.experts, sum(count * each for count, each in inside)),),
        inside=inside,
        shares=True,
        sums=True,
        experts=True,
        saved_bytes=float(rows * h * knobs.kept),
        saved_units=float(rows * f * (ups * w + knobs.kept)),
    )


def gather(knobs: Transformer) -> Part:
    """What the experts of a token gave, weighted and added up, with what it got from those that all tokens share."""
    added = (Stream(knobs.act_bytes, kernels=0),) if knobs.shared else ()
    return Part(
        forward=knobs.work(_moved(knobs), *added),
        backward=knobs.work(_moved(knobs)),
        output_bytes=knobs.act_bytes,
        saved_bytes=float(knobs.rows * knobs.width),
    )


def _moved(knobs: Transformer) -> Stream:
    """Tokens read, rows written; or the other way round."""
    return Stream(knobs.act_bytes + knobs.rows * knobs.hidden * knobs.width)
