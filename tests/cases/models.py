"""Rows of what models and data bring along: ties, frozen parameters, dropout, buffers, loaders, shared columns."""

from __future__ import annotations

from dataclasses import replace

import simulator as sim
from simulator import theory
from simulator.values import bounds

from .basic import asynchronous, both, buckets, data, one_f_one_b, pipeline, servers, single
from .pipelines import folded, h1, looped
from .sharing import BY_PRODUCT, hybrid, in_two_stages, sharded, split, zero
from .table import Bytes, Case, averaged, piped


def piped_and_tied(model: sim.Model, ranks: int) -> list[float]:
    """Beside activations, parameters go to the stages that use them too, and gradients come back."""
    stages = [range(*bounds(len(model.blocks), stage, ranks)) for stage in range(ranks)]
    sent = piped(model, ranks)
    for tie in {tie for block in model.blocks for tie in block.ties}:
        owner = next(stage for stage, blocks in enumerate(stages) if tie.block in blocks)
        for stage, blocks in enumerate(stages):
            if stage != owner and any(tie in model.blocks[block].ties for block in blocks):
                for place in (owner, stage):
                    sent[place] += (tie.last - tie.first) * model.parameter_bytes
    return sent


def gathered_for_two(model: sim.Model, ranks: int) -> list[float]:
    """A block whose parameters another uses too is gathered for that one as well, forward and backward."""
    owners = [{tie.block for tie in block.ties} for block in model.blocks]
    again = sum(model.blocks[owner].parameters for found in owners for owner in found) * model.parameter_bytes
    return [size + 2 * again * (ranks - 1) / ranks for size in sharded(3)(model, ranks)]


MASKS = {"single": "masks are drawn for each worker and microbatch"}
NORMS = {"single": "a batch is normalised by the samples of each worker and microbatch"}
TIED = {"bytes": "see the rows of pipelines for those of ties"}


def less(row: Case, outside: dict[str, str]) -> Case:
    """A row of which less is claimed."""
    return replace(row, outside={**row.outside, **outside})


def kept(model: sim.Model) -> float:
    """The bytes of all buffers."""
    return float(sum(block.buffers for block in model.blocks) * model.parameter_bytes)


def averaged_with_buffers(model: sim.Model, ranks: int) -> list[float]:
    """Gradients go through a ring, and so do buffers."""
    buffers = theory.data_parallel_bytes(ranks, kept(model))
    return [sum(both) for both in zip(averaged(model, ranks), buffers)]


def averaged_and_told(model: sim.Model, ranks: int) -> list[float]:
    """Gradients go through a ring; buffers of the first of up to three ranks go to the others."""
    return [size + (0 if rank else (ranks - 1) * kept(model)) for rank, size in enumerate(averaged(model, ranks))]


def agreeing(how: str, bytes: Bytes) -> Case:
    """A row whose ranks agree on buffers."""
    strategy = sim.stack(sim.DataParallel(), sim.SyncBuffers(how))
    return less(replace(data, id=f"buffers-{how}", strategy=strategy, bytes=bytes).on("normed", 2, 3), NORMS)


def loading(row: Case, name: str, *ranks: int, workers: int = 1, prefetch: int = 2) -> Case:
    """A row whose data are loaded ahead."""
    strategy = sim.stack(row.strategy, sim.Loader(workers, prefetch))  # type: ignore[arg-type]
    return replace(row, id=f"loader-{row.id}", strategy=strategy).on(name, *ranks)


TIES = (
    single.on("tied"),
    data.on("tied", 2),
    buckets.on("tied", 3),
    zero[1].on("tied", 2),
    zero[2].on("tied", 3),
    replace(zero[3].on("tied", 2, 3), bytes=gathered_for_two),
    replace(one_f_one_b.on("tied", 2, 3, 4), bytes=piped_and_tied),
    replace(h1.on("tied", 3), bytes=piped_and_tied),
    less(folded.on("tied", 2), TIED),
    less(looped.on("tied", 2), TIED),
    less(both.on("tied", 4), TIED),
    hybrid("pipeline-sharded-3-tied", in_two_stages(2), "tied", pipeline=2, data=2, zero=3, microbatches=2),
    servers.on("tied", 4),
    asynchronous.on("tied", 3),
)

SYNCHRONOUS: tuple[Case, ...] = (
    *TIES[:-1],
    *(row.by("momentum", 3) for row in (replace(one_f_one_b, problem="tied", id="tied", bytes=piped_and_tied),)),
    single.on("frozen"),
    single.by("nesterov").on("frozen"),
    zero[3].by("nesterov").on("frozen", 2),
    less(split.on("frozen", 2, 3), BY_PRODUCT),
    h1.by("nesterov").on("frozen", 2, 4),
    single.on("dropping"),
    pipeline("gpipe", 1).on("dropping", 2, 4),
    *(less(row.on("dropping", 2), MASKS) for row in (data, zero[1], zero[3], one_f_one_b, h1)),
    less(looped.on("dropping", 2), MASKS),
    single.on("normed"),
    *(less(row.on("normed", 2), NORMS) for row in (data, zero[3], one_f_one_b, h1)),
    agreeing("mean", averaged_with_buffers),
    agreeing("broadcast", averaged_and_told),
    loading(single, "own", 1),
    less(loading(data, "dropping", 2), MASKS),
    loading(zero[3], "own", 2, workers=2, prefetch=1),
    loading(one_f_one_b, "own", 3, workers=3),
    loading(servers, "mlp", 4),
    replace(zero[3], id="loader-first", strategy=sim.stack(sim.Loader(), sim.Sharded(3))).on("own", 2),
    less(replace(split, id="tensor-vertical", strategy=sim.TensorParallel(vertical=True)).on("mlp", 3, 4), BY_PRODUCT),
)
"""All equal the single process, but for masks and norms, which do not."""
REPLAYED: tuple[Case, ...] = (TIES[-1], asynchronous.on("dropping", 3))
