"""Workers of a parameter server in virtual time, and laws of how long their steps take."""

from __future__ import annotations

import simulator as sim
from simulator import noise
from simulator.spans import END, RANK

MODEL = sim.Model.of_times(blocks=1, forward=0.25, backward=0.75)
"""A gradient takes one second."""


class Numbered(noise.Noise):
    """Worker i takes i times as long, however many there are."""

    def factor(self, rank: int, seed: object) -> noise.Factor:
        return lambda step: max(1.0, float(rank))


LAWS = {
    "fixed": noise.fixed(),
    "exponential": noise.exponential(),
    "gamma": noise.gamma(4.0),
    "lognormal": noise.lognormal(0.5),
    "per instruction": noise.exponential(per="instruction"),
    "pareto": noise.pareto(2.5),
    "now and then": noise.transient(4.0, lasts=3, between=9) * noise.silicon(),
    "one slow": noise.slow({1: 4.0}),
    "all different": Numbered() * noise.exponential(),
}


def train(strategy: sim.Order, workers: int, steps: int, law: noise.Noise | None = None, seed: int = 0) -> sim.Run:
    """Timing only, on a free network; one server."""
    cluster = sim.cluster("ideal", ranks=workers + 1)
    return sim.simulate(strategy, MODEL, cluster, steps=steps, seed=seed, noise=law)


def first_done(run: sim.Run) -> float:
    """When the first worker had done all its steps."""
    table = run.spans.table()
    return float(min(table[table[:, RANK] == worker, END].max() for worker in run.workers))


def while_all_work(run: sim.Run, server: int = 0) -> list[int]:
    """Staleness of the gradients that a server applied before the first worker had done all its steps."""
    first = first_done(run)
    return [int(s.value) for s in run.samples if s.name == "staleness" and s.rank == server and s.time < first]


def best_of(run: sim.Run, law: noise.Noise, count: int) -> float:
    """Seconds until the first ``count`` workers of each step are done, by the law's own draws."""
    draws = [law.factor(worker, run.seed) for worker in run.workers]
    return sum(sorted(draw(step) for draw in draws)[count - 1] for step in range(run.steps))
