"""Rows of strategies for ranks of different speeds: uneven shares of the batch, stages of unevenly many blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import simulator as sim
from simulator import theory
from simulator.strategies.schedules.placing import allotted

from .basic import accumulated
from .sharing import sharded, unknown
from .table import Bytes, Case, Seconds, alone, averaged, served

FIXED = {"grows": "it names how much each rank has, of so many ranks"}
BY_PRODUCT = {**FIXED, "bytes": "the product of the closed forms of its parts, which have rows of their own"}


def piped(split: tuple[int, ...]) -> Bytes:
    """What a pipeline of such stages sends: what enters each stage but the first."""

    def sent(model: sim.Model, ranks: int) -> list[float]:
        firsts = [sum(allotted(len(model.blocks), split)[:stage]) for stage in range(1, ranks)]
        return theory.pipeline_bytes([model.batch * model.blocks[first].input_bytes for first in firsts])

    return sent


def bound_by(split: Sequence[int], microbatches: int) -> Seconds:
    """GPipe or 1F1B of two stages: each microbatch takes the time of the slower one, which waits for the other once.

    (m - 1) max_s(F_s + B_s) + Σ_s (F_s + B_s)
    """

    def seconds(ranks: int, blocks: int) -> float:
        times = [3.0 * many for many in allotted(blocks, tuple(split))]
        return (microbatches - 1) * max(times) + sum(times)

    return seconds


def shared(id: str, strategy: sim.Order | sim.Layer, bytes: Bytes, weights: tuple[int, ...], servers: int = 0) -> Case:
    """A row whose workers share the batch unevenly."""
    whole, ranks = sim.stack(strategy, sim.Shares(weights)), len(weights) + servers
    return Case(f"{id}-shares", whole, (ranks,), bytes, alone, outside=FIXED)


data = shared("data-parallel", sim.DataParallel(), averaged, (3, 1))
gpipe = sim.Pipeline("gpipe", 3, split=(3, 1))
uneven = Case("gpipe-split", gpipe, (2,), piped((3, 1)), bound_by((3, 1), 3), outside=FIXED)
both = sim.stack(sim.Pipeline("gpipe", 2, split=(1, 2)), sim.DataParallel(bucket_bytes=0), sim.Shares((2, 1)))

SYNCHRONOUS: tuple[Case, ...] = (
    data,
    *(data.on(name, 2) for name in ("gpt", "own")),
    data.by("adam", 2),
    shared("data-parallel-4", sim.DataParallel(bucket_bytes=0), averaged, (4, 1, 2, 3)),
    replace(data, id="data-accumulates-shares", seconds=accumulated(3),
            strategy=sim.stack(sim.Single(microbatches=3), sim.DataParallel(), sim.Shares((2, 1)))),
    shared("sharded-1", sim.Sharded(1), sharded(1), (1, 3)),
    shared("sharded-3", sim.Sharded(3), sharded(3), (1, 3, 2)),
    shared("parameter-server", sim.ParameterServer(), served(1), (3, 1, 1), servers=1),
    replace(data, id="data-parallel-tensor-shares", ranks=(4,), bytes=unknown, outside=BY_PRODUCT, problem="even-gpt",
            strategy=sim.stack(sim.Hybrid(data=2, tensor=2), sim.Shares((3, 1))), parts=True,
            seconds=lambda ranks, blocks: alone(ranks, blocks) / 2),
    uneven,
    uneven.on("gpt", 2),
    Case("1f1b-split", sim.Pipeline("1f1b", 3, split=(1, 2)), (2,), piped((1, 2)), bound_by((1, 2), 3), outside=FIXED),
    Case("interleaved-split", sim.Pipeline("interleaved", 2, chunks=2, split=(1, 2, 3, 2)), (2,), unknown, alone,
         "deep", {**BY_PRODUCT, "seconds": "uneven chunks have no closed form"}),
    Case("pipedream-split", sim.PipeDream(split=(3, 1)), (2,), piped((3, 1)), alone,
         outside={**FIXED, "seconds": "uneven stages without a flush have no closed form",
                  "single": "gradients are late: a stage that runs ahead learns from older weights"}),
    Case("gpipe-split-shares", both, (4,), unknown, bound_by((1, 2), 2), outside=BY_PRODUCT),
)  # fmt: skip
