"""A row of the table, and what rows claim: bytes per rank and step, seconds per step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import simulator as sim
from simulator import theory
from simulator.rules import SGD, Adam, DelayCompensated, Momentum, StalenessAware
from simulator.values import bounds

Bytes = Callable[[sim.Model, int], list[float]]
"""(model, ranks) -> what each rank sends per step."""

Seconds = Callable[[int, int], float]
"""(ranks, blocks) -> seconds per step, when a block takes 1 s forward and 2 s backward and the network is free."""


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
    """A row: a strategy and what is claimed of it. ``parts``: its ranks share blocks; ``experts``: these are split."""

    id: str
    strategy: sim.Order | sim.Layer | sim.Stack
    ranks: tuple[int, ...]
    bytes: Bytes
    seconds: Seconds
    problem: str = "mlp"
    outside: Mapping[str, str] = field(default_factory=dict)
    parts: bool = False
    experts: bool = False

    @property
    def rule(self) -> sim.rules.Rule | None:
        """The rule that the strategy names, if any."""
        return sim.stack(self.strategy).rule

    @property
    def grows(self) -> bool:
        """Whether it runs on any number of ranks, so that large ones can be tried; once for each strategy."""
        open_ended = all(part.extent is None for part in sim.stack(self.strategy).parts)
        first = self.problem in ("mlp", "gpt", "moe")
        return open_ended and first and self.ranks != (1,) and "grows" not in self.outside

    def shared(self, model: sim.Model) -> sim.Model:
        """A model of which ranks can share every block, where the strategy asks for it."""
        return model.in_parts(units=12, experts=12 if self.experts else 0) if self.parts else model

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
