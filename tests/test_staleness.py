"""Asynchrony: how late gradients come, how much of that training bears, and when it pays."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import inf

import numpy as np
import pytest
from common.workers import LAWS, MODEL, train, while_all_work

import simulator as sim
from simulator import noise, theory

# ---------------------------------------------------------------- D1, D2: how stale


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_mean_staleness_is_workers_minus_one_under_every_law(workers: int, name: str):
    run = train(sim.ParameterServer(mode="async"), workers, 240, LAWS[name])
    late = while_all_work(run)
    assert len(late) > 200
    # Each update makes the other gradients one update older: what was applied was as old as it was late, and what is
    # still under way has the age of its worker's last update. Exactly, whatever the law.
    sources = run.outcomes[0][: len(late)]
    under_way = sum(sources[::-1].index(worker) if worker in sources else len(sources) for worker in run.workers)
    assert sum(late) + under_way == theory.async_staleness(workers) * len(late)


@pytest.mark.parametrize("servers", [1, 2, 3])
def test_every_server_counts_its_own_updates(servers: int):
    run = sim.simulate(
        sim.ParameterServer(servers=servers, mode="async"),
        replace(MODEL, blocks=(sim.Block(30, sim.Seconds(0.5), sim.Seconds(0.5)),)),
        sim.Cluster.flat(ranks=servers + 4, bandwidth=1e3, latency=0.01),
        steps=50,
        noise=noise.exponential(),
    )
    for server in range(servers):
        late = while_all_work(run, server)
        assert len(late) > 100 and abs(sum(late) - 3 * len(late)) <= 2 * 4**2
    assert len(run.staleness) == servers * 4 * 50


def test_staleness_counts_the_updates_between_a_worker_s_own():
    run = train(sim.ParameterServer(mode="async"), 5, 100, noise.exponential())
    before, expected = dict.fromkeys(run.workers, 0), []
    for update, worker in enumerate(run.outcomes[0]):
        expected.append(update - before[worker])
        before[worker] = update + 1
    assert run.staleness == expected and sorted(run.outcomes[0]) == sorted(100 * list(run.workers))


def test_staleness_of_equal_workers_is_constant():
    assert set(train(sim.ParameterServer(mode="async"), 8, 50).staleness[8:]) == {7}


def test_staleness_under_exponential_times_is_geometric():
    late = np.array(while_all_work(train(sim.ParameterServer(mode="async"), 8, 3000, noise.exponential(), seed=1)))
    assert late.std() == pytest.approx(np.sqrt(8 * 7), rel=0.02)
    for k in range(6):
        assert np.mean(late == k) == pytest.approx((1 / 8) * (7 / 8) ** k, rel=0.06)


def staleness_by_worker(run: sim.Run) -> dict[int, float]:
    """Mean staleness of each worker's gradients, while all work; their first ones are left out."""
    late = while_all_work(run)
    pairs = list(zip(run.outcomes[0], late))[len(late) // 20 :]
    return {worker: float(np.mean([tau for source, tau in pairs if source == worker])) for worker in run.workers}


def test_d3_slow_workers_are_staler():
    """E[tau_i] = Σ_{j≠i} mu_j/mu_i for exponential times with rates mu: what the others do in one step of mine."""
    law = noise.slow({rank: float(rank) for rank in range(1, 9)}) * noise.exponential()
    found = staleness_by_worker(train(sim.ParameterServer(mode="async"), 8, 2500, law, seed=2))
    expected = [theory.async_staleness_of(rates=[1 / mean for mean in range(1, 9)], worker=i) for i in range(8)]
    assert expected[0] == pytest.approx(1.718, abs=5e-4) and expected[7] == pytest.approx(20.74, abs=5e-3)
    for worker, mean in enumerate(expected, start=1):  # of a geometric number, 2500/worker times: three deviations
        assert found[worker] == pytest.approx(mean, rel=3 * np.sqrt(worker / 2500))


def test_d3_a_worker_four_times_as_slow_is_four_times_as_stale():
    found = staleness_by_worker(train(sim.ParameterServer(mode="async"), 8, 400, noise.slow({8: 4.0})))
    assert found[8] == 28.0 == theory.async_staleness_of([1.0] * 7 + [0.25], worker=7)


def test_synchronous_gradients_are_never_stale():
    for strategy in (sim.ParameterServer(), sim.ParameterServer(backups=2)):
        assert set(train(strategy, 6, 20, noise.exponential()).staleness) == {0}


# ---------------------------------------------------------------- G1: who learns faster

SYNC, LATE = 0.5, 0.03
"""Learning rates, fixed. A stale gradient, which is not averaged over workers either, bears a far smaller one."""

COPIES = 64
"""As many bowls are learned at once, each with noise of its own: their mean loss hardly depends on luck."""


@cache
def seconds_to_learn(law: noise.Noise, mode: str, bound: int | None = None, rate: float = 0.0, seeds: int = 4) -> float:
    """Until the true loss of a bowl, the mean over copies and seeds in windows of two seconds, is below 0.05.

    Infinite where it never is, within 44 steps.
    """
    samples = []
    for seed in range(seeds):
        bowls = sim.problem("quadratic", spectrum=(1.0, 0.1) * COPIES, blocks=1, noise=1.0, start=2.0, batch=8)
        rule = sim.rules.SGD(rate or (SYNC if mode == "sync" else LATE))
        strategy = sim.ParameterServer(mode=mode, bound=bound, rule=rule)
        cluster = sim.cluster("ideal", ranks=9)
        bowls = replace(bowls, times=MODEL.with_batch(8))
        run = sim.simulate(strategy, bowls, cluster, steps=44, seed=seed, noise=law)
        samples += [(s.time, s.value / COPIES) for s in run.samples if s.name == "loss"]
    times, losses = np.array(samples).T
    windows = (times / 2).astype(int)
    means = np.bincount(windows, losses) / np.maximum(1, np.bincount(windows))
    learned = np.flatnonzero((means < 0.05) & (np.bincount(windows) > 0))
    return 2.0 * float(learned[0]) if len(learned) else inf


def test_asynchrony_pays_where_workers_vary_and_only_there():
    vary, agree = noise.exponential(), noise.gamma(100.0)
    free, bounded, together = (seconds_to_learn(vary, *mode) for mode in (("async",), ("ssp", 2), ("sync",)))
    assert free < 0.9 * bounded and bounded < 0.9 * together
    free, bounded, together = (seconds_to_learn(agree, *mode) for mode in (("async",), ("ssp", 2), ("sync",)))
    assert together < 0.9 * free and together < 0.9 * bounded


def test_g2_asynchrony_bears_a_learning_rate_an_order_of_magnitude_smaller():
    """Where times vary, each learns slower at three times and at a third of its rate: one for both suits neither."""
    for mode, best in (("async", 0.06), ("sync", 0.6)):
        slow, fast, rash = (
            seconds_to_learn(noise.exponential(), mode, rate=times * best, seeds=2) for times in (1 / 3, 1, 3)
        )
        assert fast < 0.9 * slow and fast < 0.9 * rash
