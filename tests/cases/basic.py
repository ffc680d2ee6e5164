"""Rows of the first strategies: single, data parallel, parameter servers, pipelines, and stacks of them."""

from __future__ import annotations

from dataclasses import replace

import simulator as sim

from .table import (
    ANY_UP_TO_4,
    PLAIN,
    Case,
    Seconds,
    alone,
    averaged,
    in_stages,
    in_two_stages,
    nothing,
    piped,
    piped_and_averaged,
    served,
)

single = Case("single", sim.Single(), (1,), nothing, alone)
data = Case("data", sim.DataParallel(), ANY_UP_TO_4, averaged, alone)
buckets = Case("data-bucket-per-block", sim.DataParallel(bucket_bytes=0), ANY_UP_TO_4, averaged, alone)
one_f_one_b = Case("pipeline-1f1b-5", sim.Pipeline("1f1b", microbatches=5), ANY_UP_TO_4, piped, in_stages(5))
server = Case("server", sim.ParameterServer(), (2, 3, 4), served(1), alone)
servers = Case("server-2", sim.ParameterServer(servers=2), (3, 4), served(2), alone)
both = Case(
    "pipeline-data",
    sim.stack(sim.Pipeline("1f1b", microbatches=3), sim.DataParallel()),
    ANY_UP_TO_4,
    piped_and_averaged,
    in_two_stages(3),
)


def pipeline(schedule: str, microbatches: int) -> Case:
    """A row for a schedule."""
    seconds = in_stages(microbatches, naive=schedule == "naive")
    strategy = sim.Pipeline(schedule, microbatches=microbatches)
    return Case(f"pipeline-{schedule}-{microbatches}", strategy, ANY_UP_TO_4, piped, seconds)


def accumulated(microbatches: int) -> Seconds:
    """The blocks of the model take their time for every microbatch."""
    return lambda ranks, blocks: microbatches * alone(ranks, blocks)


thrice = sim.Single(microbatches=3)

SYNCHRONOUS: tuple[Case, ...] = (
    single,
    *(single.on(name) for name in ("conv", "gpt", "quadratic", "own")),
    *(single.by(rule) for rule in PLAIN),
    Case("single-accumulates-4", sim.Single(microbatches=4), (1,), nothing, accumulated(4)),
    Case("data-accumulates-3", sim.stack(thrice, sim.DataParallel()), (2, 3), averaged, accumulated(3)),
    data,
    buckets,
    Case("data-small-buckets", sim.DataParallel(bucket_bytes=1000), (2, 3), averaged, alone),
    Case("data-afterwards", sim.DataParallel(bucket_bytes=1000, overlap=False), ANY_UP_TO_4, averaged, alone),
    *(data.on(name, 2, 3, 4) for name in ("conv", "gpt", "quadratic")),
    buckets.on("own", 2, 3, 4),
    *(pipeline(schedule, m) for schedule in ("naive", "gpipe", "1f1b") for m in (1, 4)),
    one_f_one_b,
    *(one_f_one_b.on(name, 2, 4) for name in ("conv", "gpt", "quadratic", "own")),
    server,
    servers,
    Case("server-3", sim.ParameterServer(servers=3), (4,), served(3), alone),
    *(servers.on(name, 4) for name in ("conv", "gpt", "quadratic", "own")),
    both,
    replace(both, id="pipeline-data-1", strategy=sim.stack(sim.Pipeline("gpipe", 3), sim.DataParallel(0)), ranks=(4,)),
    *(both.on(name, 4) for name in ("conv", "gpt", "quadratic", "own")),
    *(row.by(rule, 3) for row in (data, one_f_one_b) for rule in PLAIN),
    *(servers.by(rule, 4) for rule in PLAIN),
    *(both.by(rule, 4) for rule in PLAIN),
)
"""Strategies that must give what a single process gives."""

asynchronous = Case("async", sim.ParameterServer(mode="async"), (2, 3, 4), served(1), alone)
stale = Case("ssp-1", sim.ParameterServer(mode="ssp", bound=1), (3, 4), served(1), alone)
backups = Case(
    "backups-1",
    sim.ParameterServer(backups=1),
    (3, 4),
    served(1),
    alone,
    outside={"bytes": "what is given up is not sent"},
)


def over_two(row: Case, strategy: sim.ParameterServer) -> Case:
    """A row with two servers."""
    return replace(row, id=f"{row.id}-2", strategy=strategy, ranks=(4,), bytes=served(2))


REPLAYED: tuple[Case, ...] = (
    asynchronous,
    over_two(asynchronous, sim.ParameterServer(servers=2, mode="async")),
    stale,
    replace(stale, id="ssp-0", strategy=sim.ParameterServer(mode="ssp", bound=0)),
    over_two(stale, sim.ParameterServer(servers=2, mode="ssp", bound=1)),
    backups,
    over_two(backups, sim.ParameterServer(servers=2, backups=1)),
    *(asynchronous.on(name, 4) for name in ("conv", "gpt", "quadratic", "own")),
    *(asynchronous.by(rule, 4) for rule in ("momentum", "adam", "aware", "compensated")),
    over_two(asynchronous, sim.ParameterServer(servers=2, mode="async")).by("both", 4),
    stale.by("both", 4),
    backups.by("momentum", 4),
    backups.on("late", 4),
    over_two(backups, sim.ParameterServer(servers=2, backups=1)).on("late", 4),
    asynchronous.on("late", 4),
    stale.on("late", 4),
)
"""Strategies whose outcome depends on who comes first: a virtual run equals the real one that it replays."""
