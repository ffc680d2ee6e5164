"""Rows of what happens to gradients on their way: compression, aggregation, clipping, 1-bit Adam, a common start."""

from __future__ import annotations

from dataclasses import replace

import simulator as sim
from simulator import theory
from simulator.compression import (
    BF16,
    DGC,
    FP16,
    QSGD,
    Compressor,
    ErrorFeedback,
    Identity,
    Int8,
    PowerSGD,
    RandomK,
    Sign,
    TernGrad,
    Threshold,
    TopK,
)
from simulator.compression.ratios import exchange_bytes, gather_bytes
from simulator.strategies.aggregation import ClippedMean, TrimmedMean, WeightedMean
from simulator.values import bounds

from .sharing import sharded
from .table import ANY_UP_TO_4, Bytes, Case, alone, averaged, in_two_stages, served

STEPS = 3
"""That of the laws."""

LOSSY = {"single": "lossy"}
ROUNDED = {"single": "clipped: test_aggregation compares it with a single process that clips"}
ROBUST = {"single": "no mean"}
COUNTED = {"bytes": "how many numbers reach the threshold depends on them", "unlearned": "so it does"}
MORE = {"bytes": "counted in test_compressed"}


def exchanged(compressor: Compressor) -> Bytes:
    """The payloads of all gradients in one bucket, added or gathered."""
    return lambda model, ranks: [
        exchange_bytes(compressor, ranks, model.parameters, model.parameter_bytes) if ranks > 1 else 0.0
    ] * ranks


def factored(power: PowerSGD) -> Bytes:
    """Two factors of every matrix, each all-reduced."""

    def sent(model: sim.Model, ranks: int) -> list[float]:
        shapes = tuple(shape for block in model.blocks for shape in block.shapes)
        return theory.data_parallel_bytes(ranks, power.nbytes_shaped(shapes, model.parameter_bytes))

    return sent


def pushed(compressor: Compressor, header: int = 0) -> Bytes:
    """Payloads go to one server, parameters come back."""

    def sent(model: sim.Model, ranks: int) -> list[float]:
        size = model.parameters * model.parameter_bytes
        payload = compressor.nbytes(model.parameters, model.parameter_bytes) + header
        return [(ranks - 1) * size] + [payload] * (ranks - 1)

    return sent


def gathered(model: sim.Model, ranks: int) -> list[float]:
    """Everybody gets everybody's gradient."""
    return [gather_bytes(ranks, model.parameters * model.parameter_bytes)] * ranks


def with_norm(size: Bytes) -> Bytes:
    """And one number is added up."""
    return lambda model, ranks: [
        sent + theory.all_reduce_bytes(ranks, model.parameter_bytes) for sent in size(model, ranks)
    ]


def one_bit(warmup: int) -> Bytes:
    """Gradients in the warm-up, then signs to the server of each part, and signs of the mean from it to all."""

    def sent(model: sim.Model, ranks: int) -> list[float]:
        sizes = [end - start for start, end in (bounds(model.parameters, part, ranks) for part in range(ranks))]
        parts = [Sign().nbytes(size, model.parameter_bytes) for size in sizes]
        signs = [sum(parts) - parts[at] + sum(parts) - parts[(at + 1) % ranks] for at in range(ranks)]
        every = zip(averaged(model, ranks), signs)
        return [(warmup * dense + (STEPS - warmup) * both) / STEPS for dense, both in every]

    return sent


def data(name: str, compressor: Compressor, *ranks: int) -> Case:
    """Data parallelism with a compressor."""
    strategy = sim.DataParallel(compression=compressor)
    return Case(f"compressed-{name}", strategy, ranks or (2,), exchanged(compressor), alone, outside=LOSSY)


def by(name: str, aggregate: str | sim.aggregation.Aggregation, size: Bytes, *ranks: int) -> Case:
    """Data parallelism with an aggregation."""
    outside = {} if size is averaged else ROBUST
    return Case(f"aggregate-{name}", sim.DataParallel(aggregate=aggregate), ranks, size, alone, outside=outside)


power = PowerSGD(2)
fed = ErrorFeedback(TopK(0.05))
adam = Case("onebit-adam", sim.OneBitAdam(warmup=1, lr=0.01), (2, 3), one_bit(1), alone, "quadratic", LOSSY)
clip = Case("clip", sim.stack(sim.DataParallel(), sim.GlobalClip(0.1)), (2, 3), averaged, alone, outside=ROUNDED)
median_of_signs = sim.stack(sim.DataParallel(aggregate="median"), sim.Compressed(Sign()))
server = Case("compressed-server", sim.stack(sim.ParameterServer(), sim.Compressed(fed)), (2, 3), pushed(fed), alone)
common = {"bytes": "and once a broadcast: test_compressed counts it"}

SYNCHRONOUS: tuple[Case, ...] = (
    replace(data("identity", Identity(), *ANY_UP_TO_4), outside={}),
    replace(data("fed-identity", ErrorFeedback(Identity())), outside={}),
    *(data(type(one).__name__.lower(), one) for one in (FP16(), BF16(), Int8(), QSGD(4), TernGrad(), RandomK(0.1))),
    data("sign", Sign(), 2, 4),
    data("top-k", TopK(0.01), 3),
    data("fed-top-k", fed, 2, 3),
    data("fed-sign", ErrorFeedback(Sign()), 2),
    data("fed-random-k", ErrorFeedback(RandomK(0.1)), 2, 3),
    data("dgc", DGC(0.05), 2),
    replace(data("threshold", Threshold(0.01, density=0.1), 2, 3), outside=LOSSY | COUNTED),
    replace(data("power-sgd", power, 1, 2, 3), bytes=factored(power)),
    replace(data("fed-power-sgd", ErrorFeedback(power)), bytes=factored(power)),
    replace(
        data("fp16-in-a-ring", FP16()),
        strategy=sim.stack(sim.DataParallel(compression=FP16()), sim.RingAllReduce()),
        outside=LOSSY | MORE,
    ),
    Case(
        "compressed-pipeline",
        sim.stack(sim.Pipeline("1f1b", microbatches=3), sim.DataParallel(), sim.Compressed(fed)),
        (4,),
        averaged,
        in_two_stages(3),
        outside=LOSSY | MORE,
    ),
    replace(server, outside=LOSSY),
    by("weighted", "weighted", averaged, 2, 4),
    by("by-samples", WeightedMean((4, 5, 5)), averaged).on("own", 3),
    by("clipped-loosely", ClippedMean(1e6), averaged, 2, 3),
    by("max", "max", gathered, 2),
    by("median", "median", gathered, 3, 4),
    by("trimmed", TrimmedMean(0.3), gathered, 4),
    replace(by("median-of-signs", "median", exchanged(Sign()), 3), strategy=median_of_signs),
    clip,
    replace(
        clip,
        id="clip-pipeline",
        strategy=sim.stack(sim.Pipeline("1f1b", 3), sim.DataParallel(), sim.GlobalClip(0.1)),
        ranks=(4,),
        seconds=in_two_stages(3),
        outside=ROUNDED | MORE,
    ),
    *(
        replace(
            clip,
            id=f"clip-sharded-{stage}",
            strategy=sim.stack(sim.Sharded(stage), sim.GlobalClip(0.1)),
            bytes=with_norm(sharded(stage)),
        )
        for stage in (1, 3)
    ),
    Case("noise-scale", sim.stack(sim.DataParallel(), sim.NoiseScale()), (2, 4), averaged, alone),
    adam,
    Case("broadcast", sim.DataParallel(broadcast=True), (2, 3), averaged, alone, outside=common),
    Case("broadcast-sharded", sim.Sharded(3, broadcast=True), (2, 3), averaged, alone, outside=common),
)
"""Those that lose nothing give what a single process gives."""

random_signs = sim.stack(sim.ParameterServer(mode="async"), sim.Compressed(QSGD(4)))
random_numbers = sim.stack(sim.ParameterServer(mode="async"), sim.Compressed(RandomK(0.2)))
late = sim.stack(sim.ParameterServer(backups=1), sim.Compressed(Sign()))

REPLAYED: tuple[Case, ...] = (
    Case("compressed-async-qsgd", random_signs, (3,), pushed(QSGD(4)), alone),
    Case("compressed-async-random-k", random_numbers, (3,), pushed(RandomK(0.2), header=8), alone),
    Case("compressed-backups", late, (3,), served(1), alone, outside={"bytes": "what is given up is not sent"}),
)
"""A server that answers whoever comes first."""
