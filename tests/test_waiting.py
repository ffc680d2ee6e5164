"""Waiting for others: all of them, all but a few, or those who are too far behind."""

from __future__ import annotations

import numpy as np
import pytest
from common.workers import LAWS, MODEL, best_of, first_done, train, while_all_work

import simulator as sim
from simulator import noise, theory

# ---------------------------------------------------------------- D5, D6: bounded staleness


@pytest.mark.parametrize("bound", [0, 1, 3])
@pytest.mark.parametrize("law", ["exponential", "one slow"])
def test_nobody_runs_further_ahead_than_the_bound(bound: int, law: str):
    run = train(sim.ParameterServer(mode="ssp", bound=bound), 4, 60, LAWS[law])
    starts = {(s.rank, s.step): s.start for s in run.spans if s.instruction == "Load mb0"}
    ends = {(s.rank, s.step): s.end for s in run.spans if s.instruction == "Backward 0 mb0"}
    done = {worker: np.array([ends[worker, step] for step in range(60)]) for worker in run.workers}
    ahead = [step - min(np.sum(done[w] <= start + 1e-9) for w in run.workers) for (_, step), start in starts.items()]
    assert max(ahead) == bound
    counts = np.array([np.searchsorted(done[w], sorted(ends.values()), side="right") for w in run.workers])
    assert np.max(counts.max(0) - counts.min(0)) == bound + 1


def test_a_bound_does_not_help_against_one_worker_that_is_always_slow():
    def applied(strategy: sim.Order) -> int:
        run = train(strategy, 4, 410, noise.slow({4: 4.0}))
        return sum(s.name == "staleness" and s.time <= 400 for s in run.samples)

    # four workers at the pace of the slowest: 100 steps each in 400 s, and a start of ``bound`` for three of them
    for bound in (0, 3, 10):
        assert applied(sim.ParameterServer(mode="ssp", bound=bound)) == 400 + 3 * bound
    assert applied(sim.ParameterServer(mode="async")) == 1300


def test_a_bound_helps_against_stragglers_that_come_and_go():
    """D6, the other half: each worker is four times as slow in one step of forty, one after another.

    Synchronous workers pay for all of these steps. With a bound the others run ahead, and the late one catches up
    while nobody is kept waiting by it: all that is paid is its own lost time, once.
    """
    hiccups = noise.fixed()
    for worker in range(1, 5):
        hiccups = hiccups * noise.slow({worker: 4.0}, steps=[10 * worker])
    times = {
        bound: train(sim.ParameterServer(mode="ssp", bound=bound), 4, 40 + 10, hiccups).makespan for bound in (0, 1, 3)
    }
    assert times[0] == 50 + 4 * 3  # three more seconds for each hiccup
    assert times[3] == 50 + 3  # everybody's own, beside each other's
    assert times[3] < times[1] < times[0]


D7 = {0: 2.94, 1: 4.46, 4: 6.22, 16: 7.39}
"""Steps per second of 8 workers with exponential times, by the bound."""


@pytest.mark.parametrize("bound", D7)
def test_d7_what_a_bound_is_worth_under_exponential_times(bound: int):
    run = train(sim.ParameterServer(mode="ssp", bound=bound), 8, 1500, noise.exponential(), seed=3)
    assert len(while_all_work(run)) / first_done(run) == pytest.approx(D7[bound], rel=0.02)


def test_a_wide_bound_is_no_bound():
    wide = train(sim.ParameterServer(mode="ssp", bound=60), 4, 60, noise.exponential())
    free = train(sim.ParameterServer(mode="async"), 4, 60, noise.exponential())
    assert wide.makespan == free.makespan and wide.staleness == free.staleness


def test_a_bound_of_zero_waits_for_everybody():
    run = train(sim.ParameterServer(mode="ssp", bound=0), 6, 40, noise.exponential())
    assert run.makespan == pytest.approx(best_of(run, noise.exponential(), 6))


# ---------------------------------------------------------------- D8, D10: waiting for others


def test_theory_of_waiting():
    assert [theory.harmonic(n) for n in (1, 8, 64, 100)] == pytest.approx([1, 2.718, 4.744, 5.187], abs=5e-4)
    assert theory.backup_workers(100, 4) == pytest.approx(3.104, abs=5e-4)
    assert theory.harmonic(96) == pytest.approx(5.147, abs=5e-4)
    assert 96 / theory.backup_workers(100, 4) == pytest.approx(30.93, abs=5e-3)


@pytest.mark.parametrize("strategy", [sim.DataParallel(), sim.ParameterServer()], ids=str)
def test_a_synchronous_step_takes_as_long_as_its_slowest_worker(strategy: sim.Order):
    run = train(strategy, 7, 50, noise.gamma(2.0), seed=5)
    assert run.makespan == pytest.approx(best_of(run, noise.gamma(2.0), len(run.workers)), rel=1e-12)


def test_exponential_times_cost_a_harmonic_number():
    run = train(sim.ParameterServer(), 8, 3000, noise.exponential(), seed=0)
    assert run.makespan / run.steps == pytest.approx(theory.harmonic(8), rel=0.01)
    free = train(sim.ParameterServer(mode="async"), 8, 1000, noise.exponential())
    speed = len(while_all_work(free)) / first_done(free)
    assert speed * run.makespan / (8 * run.steps) == pytest.approx(theory.harmonic(8), rel=0.03)


SLOWEST = [
    (noise.gamma(4.0), 8, 1.808),
    (noise.gamma(4.0), 64, 2.548),
    (noise.lognormal(0.5), 8, 1.886),
    (noise.lognormal(0.5), 64, 2.923),
    (noise.normal(0.1), 8, 1.142),
    (noise.normal(0.1), 64, 1.234),
    (noise.exponential(), 64, 4.744),
]
"""D8, D9: a law, how many workers, and the mean of the slowest."""


@pytest.mark.parametrize("law, workers, slowest", SLOWEST, ids=lambda value: str(value))
def test_d9_a_synchronous_step_costs_the_mean_of_the_slowest(law: noise.Noise, workers: int, slowest: float):
    steps = 3200 if workers == 8 else 400
    cluster = sim.cluster("ideal", ranks=workers)
    run = sim.simulate(sim.DataParallel(), MODEL, cluster, steps=steps, noise=law, seed=6)
    assert run.makespan / steps == pytest.approx(slowest, rel=0.02)
    if isinstance(law, noise.Normal):
        assert run.makespan / steps < theory.slowest_normal(workers, cv=law.cv)


@pytest.mark.parametrize("backups", [1, 3])
def test_backups_spare_the_wait_for_the_last(backups: int):
    run = train(sim.ParameterServer(backups=backups), 8, 200, noise.gamma(2.0), seed=1)
    assert run.makespan == pytest.approx(best_of(run, noise.gamma(2.0), 8 - backups), rel=1e-12)
    assert len(run.staleness) == 200 * (8 - backups)


def test_exponential_times_with_backups_cost_a_difference_of_harmonic_numbers():
    run = train(sim.ParameterServer(backups=2), 10, 2000, noise.exponential(), seed=0)
    assert run.makespan / run.steps == pytest.approx(theory.backup_workers(10, 2), rel=0.015)
