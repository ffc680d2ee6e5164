"""Predicted beside measured: the same strategies on both clocks, in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import pandas as pd

from simulator import checks
from simulator.checking import AnyStrategy
from simulator.metrics import final_loss, step_time
from simulator.problem import Problem
from simulator.run import Run
from simulator.stack import Layer, Order, Stack, stack

from .prediction import Here, measure_here, predict
from .profiling import profile
from .running import execute


@dataclass(frozen=True)
class Pair:
    """One strategy on both clocks."""

    strategy: str
    ranks: int
    virtual: Run
    wall: Run
    busy: float


def compare(
    strategies: AnyStrategy | Sequence[AnyStrategy], problem: Problem, ranks: int = 2, steps: int = 20, seed: int = 0
) -> pd.DataFrame:
    """Calibrate this machine, predict strategies (or one) under the virtual clock, measure them under the wall clock.

    One row per strategy: predicted and measured time per step [ms] and their error [%], throughput [samples/s], bytes
    sent by all ranks, the last loss and the mean staleness on each clock. Errors are honest only when the machine is
    idle; ``busy cores`` says how many cores other processes were using when it was calibrated. Raises ValueError where
    there is nothing to compare, and what ``execute`` raises.

    Example::

        lab.compare([sim.DataParallel(), sim.Pipeline("1f1b", microbatches=4)], sim.problem("digits-mlp"), ranks=2)
    """
    alone = [strategies] if isinstance(strategies, (Order, Layer, Stack)) else None
    several = alone or checks.several("strategies", strategies, "a strategy, or several in a list")
    return table(pairs(several, problem, ranks, steps, seed))


def pairs(
    strategies: Sequence[AnyStrategy], problem: Problem, ranks: int = 2, steps: int = 20, seed: int = 0
) -> list[Pair]:
    """As ``compare``, but with both Runs of each strategy."""
    if not strategies:
        raise ValueError("strategies are compared, one or more of them; got none: give sim.DataParallel(), or a list")
    known: dict[int, Here] = {}
    return [_pair(strategy, problem, ranks, steps, seed, known) for strategy in strategies]


def _pair(
    strategy: AnyStrategy, problem: Problem, ranks: int, steps: int, seed: int, known: dict[int, Here]
) -> Pair:
    wall = execute(strategy, problem, ranks, steps, seed, progress=False)
    if ranks not in known:
        known[ranks] = measure_here(ranks)
    times = profile(strategy, problem, ranks)
    virtual = predict(strategy, problem, known[ranks], times, steps, seed, learn=True)
    return Pair(str(stack(strategy)), ranks, virtual, wall, known[ranks].busy)


def table(compared: Sequence[Pair]) -> pd.DataFrame:
    """Pairs of runs as a table, one row each. Raises ValueError for what are none."""
    for pair in checks.several("compared", compared, "a list of pairs, as pairs(…) gives it"):
        checks.kind("a pair", pair, Pair, "one strategy on both clocks, as pairs(…) gives it")
    return pd.DataFrame([_row(pair) for pair in compared])


def _row(pair: Pair) -> dict[str, object]:
    virtual, wall = pair.virtual, pair.wall
    predicted, measured = step_time(virtual), step_time(wall)
    return {
        "strategy": pair.strategy,
        "ranks": pair.ranks,
        "predicted step [ms]": 1e3 * predicted,
        "measured step [ms]": 1e3 * measured,
        "error [%]": 100 * (predicted - measured) / measured,
        "predicted [samples/s]": virtual.batch / predicted,
        "measured [samples/s]": wall.batch / measured,
        "bytes sent": sum(wall.bytes_sent),
        "predicted loss": final_loss(virtual),
        "measured loss": final_loss(wall),
        "predicted staleness": mean(virtual.staleness) if virtual.staleness else None,
        "measured staleness": mean(wall.staleness) if wall.staleness else None,
        "busy cores": pair.busy,
    }
