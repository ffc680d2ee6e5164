"""Rows of pipelines with several chunks per rank, with backward passes in two halves, and without flush."""

from __future__ import annotations

from dataclasses import replace

import simulator as sim
from simulator import theory
from simulator.values import bounds

from .table import ANY_UP_TO_4, Bytes, Case, Seconds, in_stages, piped, piped_and_averaged

M = 8
"""Microbatches of most rows: at least 2p-1 for up to 4 ranks, so that zero-bubble schedules reach their closed form."""

Task = tuple[str, int] | tuple[str, int, int]


# ---------------------------------------------------------------- what is sent


def chunked(chunks: int, *, folded: bool = False) -> Bytes:
    """Activations and their gradients between the chunks, which go round the ranks, or there and back."""

    def sent(model: sim.Model, ranks: int) -> list[float]:
        every, total = ranks * chunks, [0.0] * ranks
        for number in range(1, every):
            size = model.batch * model.blocks[bounds(len(model.blocks), number, every)[0]].input_bytes
            here, there = (min(n, every - 1 - n) if folded else n % ranks for n in (number - 1, number))
            if here != there:
                total[here] += size
                total[there] += size
        return total

    return sent


def two_stages_averaged(chunks: int, *, folded: bool = False) -> Bytes:
    """Two stages of several chunks each, each stage averaged over its two replicas."""

    def sent(model: sim.Model, ranks: int) -> list[float]:
        found, every = [], 2 * chunks
        for stage in range(2):
            mine = [n for n in range(every) if (min(n, every - 1 - n) if folded else n % 2) == stage]
            blocks = [block for n in mine for block in model.blocks[slice(*bounds(len(model.blocks), n, every))]]
            size = model.parameter_bytes * sum(block.parameters for block in blocks)
            for start, end in (bounds(model.batch, replica, 2) for replica in range(2)):
                part = chunked(chunks, folded=folded)(model.with_batch(end - start), 2)[stage]
                found.append(part + theory.all_reduce_bytes(2, size))
        return found

    return sent


# ---------------------------------------------------------------- how long it takes


def interleaved(microbatches: int, chunks: int, stages: int | None = None) -> Seconds:
    """Over all ranks, or over so many stages."""

    def seconds(ranks: int, blocks: int) -> float:
        p = stages or ranks
        return theory.interleaved_pipeline(p, microbatches, chunks, blocks / p, 2 * blocks / p)

    return seconds


def one_step(microbatches: int, stages: int | None = None) -> Seconds:
    """H1, with equal times of all passes. The first rank begins first and ends last: steps do not overlap."""

    def seconds(ranks: int, blocks: int) -> float:
        p = stages or ranks
        stage = blocks / p
        return 3 * microbatches * stage + theory.zero_bubble_idle("zb-h1", p, stage, stage, stage)

    return seconds


def gapless(microbatches: int, chunks: int = 1) -> Seconds:
    """No rank ever idles, but the last begins (p-1)F/v after the first: once, so half of it in each of two steps."""
    return lambda ranks, blocks: 3 * microbatches * blocks / ranks + (ranks - 1) * blocks / ranks / chunks / 2


def flowing(stages: int | None = None) -> Seconds:
    """Without a flush two steps take as long as one step of two microbatches."""
    return lambda ranks, blocks: in_stages(2)(stages or ranks, blocks) / 2


# ---------------------------------------------------------------- rows

late = {"single": "gradients are late: a stage that runs ahead learns from older weights"}
own_order: list[list[Task]] = [
    [("F", 0), ("F", 1), ("F", 0, 1), ("B", 0, 1), ("F", 1, 1), ("I", 1, 1), ("B", 0), ("I", 1), ("W", 1), ("W", 1, 1)],
    [("F", 0), ("F", 0, 1), ("F", 1), ("I", 0, 1), ("F", 1, 1), ("B", 1, 1), ("W", 0, 1), ("B", 0), ("B", 1)],
]

LOOPED = {"grows": "microbatches come in groups of as many as there are stages"}
looped = Case(
    "interleaved", sim.Pipeline("interleaved", M, chunks=2), (1, 2, 4), chunked(2), interleaved(M, 2), "deep", LOOPED
)
h1 = Case("zb-h1", sim.Pipeline("zb-h1", M), ANY_UP_TO_4, piped, one_step(M))
h2 = Case("zb-h2", sim.Pipeline("zb-h2", M), ANY_UP_TO_4, piped, gapless(M))
folded = Case("zbv", sim.Pipeline("zbv", M), ANY_UP_TO_4, chunked(2, folded=True), gapless(M, 2), "deep")
own = Case(
    "own-order",
    sim.Pipeline(own_order, 2, placement="v"),
    (2,),
    chunked(2, folded=True),
    lambda ranks, blocks: 0.0,
    "deep",
    outside={"seconds": "an order of one's own has no closed form"},
)
dream = Case("pipedream", sim.PipeDream(), ANY_UP_TO_4, piped, flowing(), outside=late)


def replicated(row: Case, strategy: sim.Order, bytes: Bytes, seconds: Seconds) -> Case:
    """Two stages over four ranks, each with two replicas."""
    strategy = sim.stack(strategy, sim.DataParallel(bucket_bytes=0))
    return replace(row, id=f"{row.id}-data", strategy=strategy, ranks=(4,), bytes=bytes, seconds=seconds)


SYNCHRONOUS: tuple[Case, ...] = (
    looped,
    replace(looped, id="interleaved-4", strategy=sim.Pipeline("interleaved", 4, chunks=4), ranks=(2,), bytes=chunked(4),
            seconds=interleaved(4, 4)),
    looped.on("gpt", 2),
    looped.on("own", 2),
    looped.by("adam", 4),
    replicated(looped, sim.Pipeline("interleaved", 4), two_stages_averaged(2), interleaved(4, 2, stages=2)),
    h1,
    *(h1.on(name, 2, 4) for name in ("conv", "gpt", "quadratic", "own")),
    h1.by("momentum", 3),
    replicated(h1, sim.Pipeline("zb-h1", 3), piped_and_averaged, one_step(3, stages=2)),
    h2,
    folded,
    folded.on("gpt", 2),
    folded.on("own", 2),
    replicated(folded, sim.Pipeline("zbv", 4), two_stages_averaged(2, folded=True),
               lambda ranks, blocks: gapless(4, 2)(2, blocks)),
    own,
    dream,
    *(dream.on(name, 4) for name in ("conv", "gpt", "own")),
    *(dream.by(rule, 4) for rule in ("momentum", "aware", "compensated")),
    replicated(dream, sim.PipeDream(), piped_and_averaged, flowing(stages=2)),
)  # fmt: skip
"""Strategies that must give what a single process gives, but for the asynchronous one."""
