"""The table of strategies. ``test_laws.py`` holds every row to the same laws.

A row says on which numbers of ranks (up to 4) its strategy runs, what it learns, what each rank sends per step and how
long a step takes where communication is free. A law that does not cover a row stands in ``outside`` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from time import sleep

import torch
import torch.distributed as dist

import simulator as sim
from simulator import theory
from simulator.rules import SGD, Adam, DelayCompensated, Momentum, StalenessAware
from simulator.values import bounds

Bytes = Callable[[sim.Model, int], list[float]]
"""(model, ranks) -> what each rank sends per step."""

Seconds = Callable[[int, int], float]
"""(ranks, blocks) -> seconds per step, when a block takes 1 s forward and 2 s backward and the network is free."""


# ---------------------------------------------------------------- what is learned


class Scaled(torch.nn.Module):
    """A block with parameters that learn and parameters that do not."""

    def __init__(self, width: int):
        super().__init__()
        self.linear = torch.nn.Linear(width, width)
        self.scale = torch.nn.Parameter(torch.linspace(0.5, 1.5, width), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of ``[samples, width]`` the same shape."""
        out: torch.Tensor = self.linear(x) * self.scale
        return out


def own_blocks() -> list[torch.nn.Module]:
    """Blocks as users write them: some without parameters, the first among them; some frozen."""
    return [torch.nn.Flatten(), torch.nn.Linear(6, 5), torch.nn.Tanh(), Scaled(5), torch.nn.Linear(5, 1)]


class Late(torch.nn.Module):
    """A block that is slow on the last of several real ranks, and nowhere else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What came in."""
        if dist.is_initialized() and dist.get_rank() == dist.get_world_size() - 1 > 0:
            sleep(0.05)
        return x


def late_blocks() -> list[torch.nn.Module]:
    """A worker with these is always late, for real."""
    return [torch.nn.Flatten(), torch.nn.Linear(6, 4), Late(), torch.nn.Linear(4, 1)]


def own_data(seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Fourteen samples, which neither 3 nor 4 workers can share evenly."""
    inputs = torch.randn(14, 2, 3)
    return inputs, inputs.flatten(1).sin().sum(1, keepdim=True)


PROBLEMS: dict[str, Callable[[], sim.Problem]] = {
    "mlp": lambda: sim.problem("digits-mlp", dtype="float64", hidden=16, batch=25),
    "conv": lambda: sim.problem("digits-conv", dtype="float64", channels=2, batch=18),
    "gpt": lambda: sim.problem("tiny-gpt", dtype="float64", layers=2, hidden=16, heads=2, sequence=12, batch=9),
    "quadratic": lambda: sim.problem("quadratic", dtype="float64", spectrum=(1.0, 0.1, 0.3, 2.0), blocks=4, batch=9),
    "own": lambda: sim.Problem(own_blocks, torch.nn.functional.mse_loss, own_data, dtype="float64"),
    "late": lambda: sim.Problem(late_blocks, torch.nn.functional.mse_loss, own_data, dtype="float64"),
}


@cache
def problem(name: str) -> sim.Problem:
    """A problem of the table; float64, small, with batches that do not split evenly."""
    return PROBLEMS[name]()


# ---------------------------------------------------------------- what is sent


def nothing(model: sim.Model, ranks: int) -> list[float]:
    """Nobody sends anything."""
    return [0.0] * ranks


def averaged(model: sim.Model, ranks: int) -> list[float]:
    """All gradients go once through a ring."""
    return theory.data_parallel_bytes(ranks, model.parameters * model.parameter_bytes)


def served(servers: int) -> Bytes:
    """Gradients go to servers, parameters come back."""
    return lambda model, ranks: theory.parameter_server_bytes(ranks, servers, model.parameters, model.parameter_bytes)


def piped(model: sim.Model, ranks: int, samples: int | None = None) -> list[float]:
    """Activations go on, their gradients come back, for so many samples (None: the whole batch)."""
    samples = model.batch if samples is None else samples
    firsts = [bounds(len(model.blocks), stage, ranks)[0] for stage in range(1, ranks)]
    return theory.pipeline_bytes([samples * model.blocks[first].input_bytes for first in firsts])


def piped_and_averaged(model: sim.Model, ranks: int) -> list[float]:
    """Two stages (or one axis of all ranks, where their number is prime), each averaged over its replicas."""
    stages = 2 if ranks == 4 else ranks
    replicas = ranks // stages
    firsts = [bounds(len(model.blocks), stage, stages) for stage in range(stages)]
    sizes = [model.parameter_bytes * sum(block.parameters for block in model.blocks[a:b]) for a, b in firsts]
    shares = [bounds(model.batch, replica, replicas) for replica in range(replicas)]
    columns = [piped(model, stages, samples=end - start) for start, end in shares]
    return [
        columns[replica][stage] + theory.all_reduce_bytes(replicas, sizes[stage])
        for stage in range(stages)
        for replica in range(replicas)
    ]


# ---------------------------------------------------------------- how long it takes


def alone(ranks: int, blocks: int) -> float:
    """Every worker computes all blocks; nobody waits."""
    return 3.0 * blocks


def in_stages(microbatches: int, *, naive: bool = False) -> Seconds:
    """A pipeline over all ranks."""
    form = theory.naive_pipeline if naive else theory.pipeline
    return lambda ranks, blocks: form(ranks, microbatches, blocks / ranks, 2 * blocks / ranks)


def in_two_stages(microbatches: int) -> Seconds:
    """A pipeline of two stages (of all ranks, where their number is prime)."""
    return lambda ranks, blocks: in_stages(microbatches)(2 if ranks == 4 else ranks, blocks)


# ---------------------------------------------------------------- the table


@dataclass(frozen=True, eq=False)
class Case:
    """A row: a strategy and what is claimed of it."""

    id: str
    strategy: sim.Order | sim.Layer | sim.Stack
    ranks: tuple[int, ...]
    bytes: Bytes
    seconds: Seconds
    problem: str = "mlp"
    outside: Mapping[str, str] = field(default_factory=dict)

    @property
    def rule(self) -> sim.rules.Rule | None:
        """The rule that the strategy names, if any."""
        return sim.stack(self.strategy).rule

    def on(self, problem: str, *ranks: int) -> Case:
        """The same strategy with another problem, on these numbers of ranks."""
        return replace(self, id=f"{self.id}-{problem}", problem=problem, ranks=ranks or self.ranks)

    def by(self, name: str, *ranks: int) -> Case:
        """The same strategy with a rule of its own, on these numbers of ranks."""
        rule = RULES[name]
        whole = sim.stack(self.strategy)
        ruled = sim.stack(replace(whole.order, rule=rule), *whole.layers)
        return replace(self, id=f"{self.id}-{name}", strategy=ruled, ranks=ranks or self.ranks)

    def __str__(self) -> str:
        return self.id


ANY_UP_TO_4 = (1, 2, 3, 4)
RULES: dict[str, sim.rules.Rule] = {
    "sgd": SGD(0.3),
    "momentum": Momentum(0.02),
    "nesterov": Momentum(0.05, beta=0.8, nesterov=True, weight_decay=0.01),
    "adam": Adam(0.01),
    "aware": StalenessAware(SGD(0.3)),
    "compensated": DelayCompensated(SGD(0.1), strength=0.5),
    "both": StalenessAware(DelayCompensated(Momentum(0.02))),
}
PLAIN = ("sgd", "momentum", "nesterov", "adam")

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


SYNCHRONOUS: tuple[Case, ...] = (
    single,
    *(single.on(name) for name in ("conv", "gpt", "quadratic", "own")),
    *(single.by(rule) for rule in PLAIN),
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

ALL = SYNCHRONOUS + REPLAYED
