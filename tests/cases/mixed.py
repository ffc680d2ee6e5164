"""Rows of mixed precision: on both clocks the very same numbers of 2 bytes."""

from __future__ import annotations

from dataclasses import replace

import simulator as sim
from simulator.precision import WIDTH
from simulator.rules import Adam, FixedScale

from .pipelines import h1
from .sharing import sharded, split
from .table import Bytes, Case, Seconds, alone, averaged, in_stages, piped, served

ROUNDED = {"single": "numbers of 2 bytes are rounded; tests/test_mixed_precision.py says how far"}
BF16 = sim.MixedPrecision("bf16")
FP16 = sim.MixedPrecision("fp16", scale=FixedScale(128.0))
WIDE = sim.MixedPrecision("bf16", accumulate=True)


def narrow(full: Bytes) -> Bytes:
    """What is sent in 2 bytes a number."""
    return lambda model, ranks: [WIDTH / model.parameter_bytes * sent for sent in full(model, ranks)]


def three(model: sim.Model, ranks: int) -> list[float]:
    """Parameters of 2 bytes gathered, gradients of full width scattered (stage 1)."""
    return [(WIDTH / model.parameter_bytes + 1) / 2 * sent for sent in sharded(1)(model, ranks)]


def row(
    id: str, strategy: sim.Order | sim.Layer, layer: sim.MixedPrecision, bytes: Bytes, seconds: Seconds = alone
) -> Case:
    """A strategy on two ranks, with blocks that compute in fewer bits."""
    return Case(f"mixed-{id}", sim.stack(strategy, layer), (2,), bytes, seconds, outside=ROUNDED)


def mixed(case: Case, layer: sim.MixedPrecision) -> Case:
    """Another row, with blocks that compute in fewer bits; it sends activations only."""
    strategy = sim.stack(case.strategy, layer)
    return replace(
        case, id=f"mixed-{case.id}", strategy=strategy, ranks=(2,), bytes=narrow(case.bytes), outside=ROUNDED
    )


SYNCHRONOUS: tuple[Case, ...] = (
    row("data", sim.DataParallel(), BF16, narrow(averaged)),
    row("data-fp16", sim.DataParallel(rule=Adam(0.01)), FP16, narrow(averaged)),
    row("data-wide", sim.DataParallel(), WIDE, averaged),
    row("sharded-1-wide", sim.Sharded(1), WIDE, three),
    row("sharded-3", sim.Sharded(3), BF16, narrow(sharded(3))),
    row("1f1b", sim.Pipeline("1f1b", microbatches=4), BF16, narrow(piped), in_stages(4)),
    row("served", sim.ParameterServer(), BF16, narrow(served(1)), lambda ranks, blocks: 3.0 * blocks),
    mixed(h1, WIDE),
    mixed(split, BF16),
)
