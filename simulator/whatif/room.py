"""What a mix takes of a device's memory, in closed form: states by ZeRO stage, activations by schedule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, chain

from ..precision import Precision
from ..theory.pipelines import in_flight
from .mixes import Mix
from .reading import Read


def room(mix: Mix, at: int, chunks: Sequence[Sequence[Read]], precision: Precision, numbers: int) -> float:
    """Bytes that the rank at place ``at`` of the pipeline holds at most, with these chunks of the model.

    Gradients of one microbatch grow as its activations go; those of several are there with the activations of the last.
    """
    blocks = list(chain.from_iterable(chunks))
    sizes = [block.parameters for block in blocks]
    kept, gradients = states(mix, sum(sizes), max(sizes), precision, numbers)
    held = sum(many * sum(block.saved for block in chunk) for many, chunk in zip(under_way(mix, at), chunks))
    before = accumulate((block.saved for block in blocks), initial=0.0)
    running = max(block.again + block.saved + earlier for earlier, block in zip(before, blocks))
    moving = 2 * max(block.entering for block in blocks)  # an output, and a gradient, are on their way
    active = mix.microbatch * (held + max(0.0, running - sum(block.saved for block in blocks)) + moving)
    return kept + (max(active, gradients) if mix.microbatches == 1 else active + gradients)


def under_way(mix: Mix, at: int) -> list[float]:
    """How many microbatches a rank holds of each of its chunks, when it holds most.

    An interleaved pipeline visits chunks in turn, each with as many microbatches as there are ranks.

    >>> under_way(Mix(pipeline=4, microbatches=8), 0), under_way(Mix(pipeline=4, microbatches=8, chunks=2), 3)
    ([4], [4, 1])
    """
    p, v = mix.pipeline, mix.chunks
    if v == 1:
        return [in_flight(mix.schedule or "naive", at, p, mix.microbatches)]
    visits = range(round(v * in_flight("interleaved", at, p, mix.microbatches, v)))
    many = Counter(visit // p % v for visit in visits)
    return [many[chunk] for chunk in range(v)]


def states(mix: Mix, parameters: float, largest: float, precision: Precision, numbers: int) -> tuple[float, float]:
    """(parameters and the optimizer's state, gradients) of one rank [B].

    With Ψ parameters, d ranks and Adam in mixed precision, together 16Ψ, 4Ψ + 12Ψ/d, 2Ψ + 14Ψ/d and 16Ψ/d for the
    stages 0 to 3, and what is whole while it is used: the ``largest`` block's gradients, and two blocks' parameters
    (Rajbhandari et al. 2020, arXiv:1910.02054). Gradients of several microbatches are added up whole before they are
    reduced.

    >>> adam = Precision.mixed()
    >>> [sum(states(Mix(data=64, stage=stage), 7.5e9, 0.0, adam, 2)) / 1e9 for stage in (0, 1, 2, 3)]
    [120.0, 31.40625, 16.640625, 1.875]
    """
    part, rest = parameters / mix.data, 1 - 1 / mix.data
    whole = mix.stage < 2 or mix.microbatches > 1
    gradients = parameters if whole else part + largest * rest
    held = parameters if mix.stage < 3 else part + min(2 * largest, parameters) * rest
    own = (parameters if mix.stage < 1 else part) * (precision.master + numbers * precision.state)
    return held * precision.parameters + own, gradients * precision.gradients
