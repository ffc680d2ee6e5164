"""Asynchrony: what theory says of staleness, waiting and stability, found again on the virtual clock."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import simulator as sim
from simulator import noise, theory

MODEL = sim.Model.of_times(blocks=1, forward=0.25, backward=0.75)
"""A gradient takes one second."""

LAWS = {
    "fixed": noise.fixed(),
    "exponential": noise.exponential(),
    "gamma": noise.gamma(4.0),
    "lognormal": noise.lognormal(0.5),
    "per instruction": noise.exponential(per="instruction"),
    "one slow": noise.slow({1: 4.0}),
    "all different": noise.slow({rank: float(rank) for rank in range(1, 9)}) * noise.exponential(),
}


def train(strategy: sim.Order, workers: int, steps: int, law: noise.Noise | None = None, seed: int = 0) -> sim.Run:
    """Timing only, on a free network; one server."""
    cluster = sim.cluster("ideal", ranks=workers + 1)
    return sim.simulate(strategy, MODEL, cluster, steps=steps, seed=seed, noise=law)


def while_all_work(run: sim.Run, server: int = 0) -> list[int]:
    """Staleness of the gradients that a server applied before the first worker had done all its steps."""
    first = min(max(span.end for span in run.spans if span.rank == worker) for worker in run.workers)
    return [int(s.value) for s in run.samples if s.name == "staleness" and s.rank == server and s.time < first]


def best_of(run: sim.Run, law: noise.Noise, count: int) -> float:
    """Seconds until the first ``count`` workers of each step are done, by the law's own draws."""
    draws = [law.factor(worker, run.seed) for worker in run.workers]
    return sum(sorted(draw(step) for draw in draws)[count - 1] for step in range(run.steps))


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


def test_synchronous_gradients_are_never_stale():
    for strategy in (sim.ParameterServer(), sim.ParameterServer(backups=2)):
        assert set(train(strategy, 6, 20, noise.exponential()).staleness) == {0}


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
    first = min(max(s.end for s in free.spans if s.rank == worker) for worker in free.workers)
    speed = len(while_all_work(free)) / first
    assert speed * run.makespan / (8 * run.steps) == pytest.approx(theory.harmonic(8), rel=0.03)


@pytest.mark.parametrize("backups", [1, 3])
def test_backups_spare_the_wait_for_the_last(backups: int):
    run = train(sim.ParameterServer(backups=backups), 8, 200, noise.gamma(2.0), seed=1)
    assert run.makespan == pytest.approx(best_of(run, noise.gamma(2.0), 8 - backups), rel=1e-12)
    assert len(run.staleness) == 200 * (8 - backups)


def test_exponential_times_with_backups_cost_a_difference_of_harmonic_numbers():
    run = train(sim.ParameterServer(backups=2), 10, 2000, noise.exponential(), seed=0)
    assert run.makespan / run.steps == pytest.approx(theory.backup_workers(10, 2), rel=0.015)


# ---------------------------------------------------------------- D11: stability


def test_theory_of_stability():
    limits = {0: 2, 1: 1.0, 2: 0.6180, 3: 0.4450, 4: 0.3473, 7: 0.20906, 15: 0.10130, 31: 0.04986, 63: 0.02474}
    assert [theory.largest_stable_rate(tau) for tau in limits] == pytest.approx(list(limits.values()), abs=5e-5)


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_constant_staleness_limits_the_learning_rate(workers: int):
    """Real training: N equal workers have staleness N - 1, and a quadratic bowl is stable below its limit only."""

    def growth(rate: float) -> float:
        bowl = sim.problem("quadratic", spectrum=(1.0,), noise=0.0, lr=rate, batch=workers, dtype="float64")
        cluster = sim.cluster("ideal", ranks=workers + 1)
        run = sim.simulate(sim.ParameterServer(mode="async"), bowl, cluster, steps=150)
        rows = [row.loss for row in run.losses]
        assert set(run.staleness[workers:]) == {theory.async_staleness(workers)}
        period = 10 * workers  # the loss swings
        return max(rows[-period:]) / max(rows[len(rows) // 2 :][:period])

    limit = theory.largest_stable_rate(theory.async_staleness(workers))
    assert growth(0.98 * limit) < 0.5
    assert growth(1.02 * limit) > 2.0


@pytest.mark.parametrize("rule", [sim.rules.SGD(1.2), sim.rules.StalenessAware(sim.rules.SGD(1.2))], ids=str)
def test_a_rule_that_minds_staleness_is_stable_where_another_is_not(rule: sim.rules.Rule):
    bowl = sim.problem("quadratic", spectrum=(1.0,), noise=0.0, batch=4, dtype="float64")
    run = sim.simulate(sim.ParameterServer(mode="async", rule=rule), bowl, sim.cluster("ideal", ranks=5), steps=20)
    assert (run.losses[-1].loss < 1e-2) == isinstance(rule, sim.rules.StalenessAware)


# ---------------------------------------------------------------- G1: who learns faster

SYNC, LATE = 0.5, 0.03
"""Learning rates, fixed. A stale gradient, which is not averaged over workers either, bears a far smaller one."""

COPIES = 64
"""As many bowls are learned at once, each with noise of its own: their mean loss hardly depends on luck."""


@cache
def seconds_to_learn(law: noise.Noise, mode: str, bound: int | None = None) -> float:
    """Until the true loss of a bowl, the mean over copies and seeds in windows of two seconds, is below 0.05."""
    samples = []
    for seed in range(4):
        bowls = sim.problem("quadratic", spectrum=(1.0, 0.1) * COPIES, blocks=1, noise=1.0, start=2.0, batch=8)
        rule = sim.rules.SGD(SYNC if mode == "sync" else LATE)
        strategy = sim.ParameterServer(mode=mode, bound=bound, rule=rule)
        cluster = sim.cluster("ideal", ranks=9)
        bowls = replace(bowls, times=MODEL.with_batch(8))
        run = sim.simulate(strategy, bowls, cluster, steps=44, seed=seed, noise=law)
        samples += [(s.time, s.value / COPIES) for s in run.samples if s.name == "loss"]
    times, losses = np.array(samples).T
    windows = (times / 2).astype(int)
    means = np.bincount(windows, losses) / np.maximum(1, np.bincount(windows))
    return 2.0 * float(np.flatnonzero((means < 0.05) & (np.bincount(windows) > 0))[0])


def test_asynchrony_pays_where_workers_vary_and_only_there():
    vary, agree = noise.exponential(), noise.gamma(100.0)
    free, bounded, together = (seconds_to_learn(vary, *mode) for mode in (("async",), ("ssp", 2), ("sync",)))
    assert free < 0.9 * bounded and bounded < 0.9 * together
    free, bounded, together = (seconds_to_learn(agree, *mode) for mode in (("async",), ("ssp", 2), ("sync",)))
    assert together < 0.9 * free and together < 0.9 * bounded
