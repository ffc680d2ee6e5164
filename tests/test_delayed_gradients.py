"""What late gradients do to learning: limits of stability, the best rate, momentum that nobody asked for, remedies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from math import log

import numpy as np
import pytest
from common.workers import MODEL, train, while_all_work
from hypothesis import given
from hypothesis import strategies as st

import simulator as sim
from simulator import noise, theory
from simulator.rules import SGD, DelayCompensated, Momentum, Rule, StalenessAware


def learned(rule: Rule, workers: int, steps: int, law: noise.Noise | None = None, spectrum=(1.0,)) -> sim.Run:
    """Asynchronous training in a bowl, from 1, with exact gradients, each of which takes a second."""
    bowl = sim.problem("quadratic", spectrum=spectrum, noise=0.0, blocks=1, batch=workers, dtype="float64")
    bowl = replace(bowl, times=MODEL.with_batch(workers))
    cluster = sim.cluster("ideal", ranks=workers + 1)
    return sim.simulate(sim.ParameterServer(mode="async", rule=rule), bowl, cluster, steps=steps, noise=law)


def growth(rule: Rule, workers: int) -> float:
    """By what the loss is multiplied in the second half of a training with constant staleness."""
    run = learned(rule, workers, steps=60 + 240 // workers)
    assert set(run.staleness[workers:]) == {theory.async_staleness(workers)}
    rows, period = [row.loss for row in run.losses], 10 * workers  # the loss swings
    return max(rows[-period:]) / max(rows[len(rows) // 2 :][:period])


# ---------------------------------------------------------------- D11, D13, D16: limits of stability


def test_theory_of_stability():
    limits = {0: 2, 1: 1.0, 2: 0.6180, 3: 0.4450, 4: 0.3473, 7: 0.20906, 15: 0.10130, 31: 0.04986, 63: 0.02474}
    assert [theory.largest_stable_rate(tau) for tau in limits] == pytest.approx(list(limits.values()), abs=5e-5)
    known = [2 * np.sin(np.pi / (2 * (2 * tau + 1))) for tau in limits]
    assert [theory.largest_stable_rate(tau) for tau in limits] == pytest.approx(known, rel=1e-12)


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_d11_constant_staleness_limits_the_learning_rate(workers: int):
    """Real training: N equal workers have staleness N - 1, and a quadratic bowl is stable below its limit only."""
    limit = theory.largest_stable_rate(theory.async_staleness(workers))
    assert growth(SGD(0.98 * limit), workers) < 0.5
    assert growth(SGD(1.02 * limit), workers) > 2.0


@pytest.mark.parametrize("tau, limit", [(0, 3.8), (1, 0.1), (3, 0.0348), (7, 0.01575)])
def test_d13_theory_of_momentum(tau: int, limit: float):
    assert theory.largest_stable_rate(tau, momentum=0.9) == pytest.approx(limit, rel=2e-3)


@given(st.floats(0.0, 0.999), st.integers(0, 40))
def test_d13_the_limit_is_a_root_on_the_unit_circle(momentum: float, tau: int):
    """And no root is outside of it just below. Of one update's delay it is 1 - momentum, without delay 2(1 + it)."""
    limit = theory.largest_stable_rate(tau, momentum)
    sizes = []
    for rate in (limit, limit * (1 - 1e-4)):
        polynomial = np.zeros(max(tau + 2, 3))
        polynomial[:3] = 1.0, -(1 + momentum), momentum
        polynomial[max(tau + 1, 1) if tau else 1] += rate  # x(tau + 1 updates before the newest)
        sizes.append(np.abs(np.roots(polynomial)).max())
    assert sizes[0] == pytest.approx(1.0, abs=1e-6) and sizes[1] < 1.0 + 1e-9
    if tau < 2:
        assert limit == pytest.approx(1 - momentum if tau else 2 * (1 + momentum))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_d13_momentum_and_delay_do_not_go_together(workers: int):
    limit = theory.largest_stable_rate(theory.async_staleness(workers), momentum=0.9)
    assert growth(Momentum(0.9 * limit, beta=0.9), workers) < 0.5
    assert growth(Momentum(1.1 * limit, beta=0.9), workers) > 2.0


@pytest.mark.parametrize("workers, limit", [(1, 2), (2, 2), (3, 1.854), (4, 1.780)])
def test_d16_a_rate_that_is_divided_by_staleness_has_a_limit_that_hardly_falls(workers: int, limit: float):
    assert limit == pytest.approx(workers * theory.largest_stable_rate(workers - 1), rel=1e-3)
    assert growth(StalenessAware(SGD(0.98 * limit)), workers) < 0.5
    assert growth(StalenessAware(SGD(1.02 * limit)), workers) > 2.0


def test_d16_below_half_pi_it_is_stable_for_every_staleness():
    limits = [(tau + 1) * theory.largest_stable_rate(tau) for tau in range(1000)]
    assert limits[1:] == sorted(limits[1:], reverse=True) and limits[-1] == pytest.approx(np.pi / 2, rel=1e-3)
    assert min(limits) > np.pi / 2


# ---------------------------------------------------------------- D12: the best rate


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_d12_the_best_rate(workers: int):
    """There two roots meet: distances shrink as t·left^t, by left·(1 + 1/t) from one update to the next."""
    best, left = theory.best_rate(workers - 1)

    def distances(rate: float) -> np.ndarray:
        return np.sqrt([2 * row.loss for row in learned(SGD(rate), workers, steps=60).losses])

    found = distances(best)[-40:]
    assert np.diff(1 / (found[1:] / found[:-1] / left - 1)) == pytest.approx(1.0, abs=1e-3)
    slower = [np.max(distances(rate)[-40:]) for rate in (0.8 * best, 1.25 * best)]
    assert min(slower) > 10 * np.max(found)


# ---------------------------------------------------------------- D14, D15: staleness as it comes by chance


@cache
def memoryless(workers: int) -> np.ndarray:
    """Staleness of each update, while all workers work, which take exponential times."""
    order, updates = sim.ParameterServer(mode="async"), 12000
    return np.array(while_all_work(train(order, workers, updates // workers, noise.exponential(), seed=1)))


def delayed(late: np.ndarray, rate: float) -> np.ndarray:
    """x ← x - rate · x(late updates ago), from 1: [runs, updates + 1], for a staleness of [runs, updates]."""
    runs = np.arange(len(late))
    x = np.ones((len(late), late.shape[1] + 1))
    for t in range(late.shape[1]):
        x[:, t + 1] = x[:, t] - rate * x[runs, np.maximum(0, t - late[:, t])]
    return x


def test_a_run_moves_by_gradients_as_old_as_it_says():
    run = learned(SGD(0.2), 4, 25, noise.exponential())
    (x,) = run.parameters.values()
    assert x == pytest.approx(delayed(np.array([run.staleness]), 0.2)[0, -1], rel=1e-12)


def test_d14_in_the_mean_asynchrony_is_momentum():
    """Over all windows of a long run: a window begins as a run does, for times without memory do not know of it."""
    workers, rate, updates = 8, 0.05, 60
    found = delayed(np.lib.stride_tricks.sliding_window_view(memoryless(workers), updates), rate).mean(0)
    momentum, share = theory.implicit_momentum(workers)
    heavy = [1.0, 1.0 - rate]  # nobody has seen an update before the first
    for _ in range(updates - 1):
        heavy.append(heavy[-1] + momentum * (heavy[-1] - heavy[-2]) - share * rate * heavy[-1])
    assert found == pytest.approx(heavy, abs=0.01)
    constant = delayed(np.full((1, updates), workers - 1), rate)[0]
    assert np.abs(constant - heavy).max() > 0.03


def exponent(late: Sequence[int], rate: float) -> float:
    """The mean logarithm of what an update multiplies the distance by, over one long run."""
    past, grown = [1.0], 0.0
    for update, tau in enumerate(late, start=1):
        past.append(past[-1] - rate * past[max(-len(past), -1 - tau)])
        if update % 200 == 0:  # before numbers grow too large, or too small
            top = max(map(abs, past[-50:]))
            past, grown = [x / top for x in past[-500:]], grown + log(top)
    return grown / len(late)


@pytest.mark.parametrize("workers, limit", [(2, 1.52), (4, 1.10), (8, 0.69), (16, 0.48)])
def test_d15_staleness_by_chance_bears_more_than_constant_staleness(workers: int, limit: float):
    """But less than the mean does, which lets one hope for 2(2N - 1)."""
    late = memoryless(workers).tolist()
    assert exponent(late, 0.93 * limit) < 0 < exponent(late, 1.07 * limit)
    assert limit > 1.4 * theory.largest_stable_rate(workers - 1)
    assert exponent(late, 0.5 * 2 * (2 * workers - 1)) > 0


# ---------------------------------------------------------------- D17, and what else helps


def halved(gradient: object, delta: object) -> object:
    """H · delta in a bowl of curvature 1/2."""
    return delta / 2  # type: ignore[operator]


@pytest.mark.parametrize("law", [noise.fixed(), noise.exponential()], ids=str)
def test_d17_with_the_true_curvature_delay_is_undone(law: noise.Noise):
    """Asynchronous training is then sequential SGD, whatever the staleness; with the guess g² it is not."""
    rules = DelayCompensated(SGD(0.3), curvature=halved), DelayCompensated(SGD(0.3)), SGD(0.3)
    runs = [learned(rule, 4, 8, law, spectrum=(0.5,) * 3) for rule in rules]
    for run, same in zip(runs, (True, False, False), strict=True):
        (x,) = run.parameters.values()
        assert (x == pytest.approx((1 - 0.3 * 0.5) ** len(run.staleness), rel=1e-11)) == same
    assert max(runs[0].staleness) >= 3


@pytest.mark.parametrize("rule", [SGD(1.2), StalenessAware(SGD(1.2))], ids=str)
def test_a_rule_that_minds_staleness_is_stable_where_another_is_not(rule: Rule):
    assert (learned(rule, 4, 20).losses[-1].loss < 1e-2) == isinstance(rule, StalenessAware)
