"""Federated methods in rounds: where drift takes them, unequal data, bytes and time."""

from __future__ import annotations

from collections import Counter
from functools import partial
from math import inf, sqrt

import pytest
from cases import problem
from common.federated import A, X, bowls, found, learn, single
from common.runs import apart
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import theory as fed

# ---------------------------------------------------------------- FedAvg and its drift (H1, H2, H3)


H1 = {1: 0.90909, 5: 0.81069, 20: 0.60919, 200: 0.50001}


@pytest.mark.parametrize("steps, rounds", [(1, 90), (5, 30), (20, 18), (200, 5)])
def test_h1_fedavg_ends_where_drift_takes_it(steps: int, rounds: int):
    limit = fed.fedavg_limit(A, X, 0.05, steps)
    assert round(limit, 5) == H1[steps]
    assert found(learn(sim.FedAvg(local_steps=steps), bowls(), 3, steps * rounds)) == pytest.approx(limit, abs=1e-9)


def test_h2_fedprox_drifts_less_the_stronger_its_spring():
    run = learn(sim.FedProx(mu=5.0, local_steps=32), bowls(lr=0.09), 3, 32 * 40)
    assert found(run) == pytest.approx(0.8, abs=1e-9) == fed.fedprox_limit(A, X, 5.0)
    assert fed.fedprox_limit(A, X, 1e12) == pytest.approx(fed.optimum(A, X), abs=1e-9)


def test_without_a_spring_fedprox_is_fedavg():
    methods = (sim.FedProx(0.0, local_steps=3), sim.FedAvg(local_steps=3))
    ours, theirs = (learn(method, problem("mlp"), 3, 6) for method in methods)
    assert apart(ours, theirs) == 0


@pytest.mark.parametrize("steps, lr, rounds", [(1, 0.05, 50), (5, 0.05, 25), (20, 0.05, 25), (100, 0.01, 22)])
def test_h3_scaffold_finds_the_optimum_however_many_local_steps(steps: int, lr: float, rounds: int):
    run = learn(sim.SCAFFOLD(local_steps=steps), bowls(lr=lr), 3, steps * rounds)
    assert found(run) == pytest.approx(fed.optimum(A, X), abs=1e-6) == pytest.approx(0.90909, abs=1e-5)
    assert steps == 1 or fed.fedavg_limit(A, X, lr, steps) < 0.82


def test_h3_scaffold_finds_it_with_sampled_clients_of_unequal_data():
    curvatures, minima = (1.0, 10.0, 10.0, 4.0), (0.0, 1.0, 1.0, 2.0)
    knobs = dict(local_steps=5, weights=(1, 2, 1), clients_per_round=2)
    ours, theirs = (
        learn(method(**knobs), bowls(curvatures, minima, lr=0.04), 4, 400) for method in (sim.SCAFFOLD, sim.FedAvg)
    )
    best = fed.optimum(curvatures, minima)
    assert found(ours) == pytest.approx(best, abs=1e-6) and abs(found(theirs) - best) > 0.01


def test_one_client_is_a_single_process():
    for strategy in (sim.FedAvg(local_steps=4), sim.SCAFFOLD(local_steps=4)):
        assert apart(learn(strategy, problem("mlp"), 2, 6), single("mlp")) <= 1e-12


def test_the_server_can_take_half_steps():
    one, half = (learn(sim.FedAvg(local_steps=6, server_lr=lr), bowls(), 3, 6) for lr in (1.0, 0.5))
    assert found(half) - 0.3 == pytest.approx((found(one) - 0.3) / 2, rel=1e-12)


# ---------------------------------------------------------------- unequal data, and the draw of clients


@settings(max_examples=8, deadline=None)
@given(weights=st.lists(st.floats(1.0, 5.0), min_size=3, max_size=3))
def test_clients_with_unequal_data_still_give_what_a_single_process_gives(weights: list[float]):
    assert apart(learn(sim.FedAvg(local_steps=1, weights=weights), problem("mlp"), 4, 6), single("mlp")) <= 1e-12


def test_a_client_s_slice_is_its_part_of_the_batch_and_takes_its_time():
    work = sim.Block(10, sim.Flops(1e9), sim.Flops(2e9), 8.0)
    model = sim.Model("work", (work,), batch=60)
    run = sim.simulate(sim.FedAvg(local_steps=1, weights=(1, 2, 3)), model, sim.cluster("ideal", ranks=4), steps=2)
    assert run.busy == pytest.approx([0, *(2 * samples * 3e9 / sim.Device().flops for samples in (10, 20, 30))])


def test_h1_clients_with_more_data_pull_harder():
    run = learn(sim.FedAvg(local_steps=5, weights=(2, 1)), bowls((1.0, 1.0, 10.0), (0.0, 0.0, 1.0)), 3, 200)
    light, heavy = (1 - (1 - 0.05 * a) ** 5 for a in A)
    assert found(run) == pytest.approx(heavy / (2 * light + heavy), abs=1e-9)


def test_every_round_draws_clients_anew_and_all_alike():
    strategy = sim.FedAvg(local_steps=1, clients_per_round=3)
    model = sim.Model.of_times(blocks=1, parameters=10, batch=10)
    run = sim.simulate(strategy, model, sim.cluster("ideal", ranks=11), steps=400)
    cohorts = [set() for _ in range(400)]
    for span in run.spans:
        if span.instruction == "Load mb0":
            cohorts[span.step].add(span.rank)
    assert {len(cohort) for cohort in cohorts} == {3} and len(set(map(frozenset, cohorts))) > 100
    counts = Counter(rank for cohort in cohorts for rank in cohort)
    assert all(abs(counts[rank] - 120) < 4 * sqrt(400 * 0.3 * 0.7) for rank in run.workers)
    assert run.bytes_sent[0] == 400 * 3 * 40 and run.bytes_sent[1:] == [40.0 * counts[rank] for rank in run.workers]


def test_another_seed_draws_others_and_the_same_seed_the_same():
    runs = [
        learn(sim.FedAvg(local_steps=2, clients_per_round=1, seed=seed), problem("mlp"), 5, 6) for seed in (1, 1, 2)
    ]
    assert apart(runs[0], runs[1]) == 0 and apart(runs[0], runs[2]) > 1e-4


# ---------------------------------------------------------------- bytes and time (H6, H7)


@pytest.mark.parametrize("method, copies", [(sim.FedAvg, 1), (partial(sim.FedProx, 0.1), 1), (sim.SCAFFOLD, 2)])
def test_h6_a_round_moves_two_models_per_client_however_long_it_is(method, copies: int):
    model = sim.Model.of_times(blocks=2, parameters=1000, batch=100)
    for steps, clients in ((1, 4), (10, 4), (10, 2)):
        strategy = method(local_steps=steps, clients_per_round=clients)
        run = sim.simulate(strategy, model, sim.cluster("ideal", ranks=5), steps=20)
        assert sum(run.bytes_sent) == 20 / steps * copies * fed.fedavg_bytes(4000, clients)


@pytest.mark.parametrize("clients", [1, 3])
def test_h7_a_round_is_down_compute_and_up(clients: int):
    model = sim.Model.of_times(blocks=1, forward=1.0, backward=2.0, parameters=1000, batch=clients)
    cluster = sim.Cluster.flat(ranks=clients + 1, bandwidth=1e3, latency=0.0)
    run = sim.simulate(sim.FedAvg(local_steps=5), model, cluster, steps=10)
    share = 1e3 / clients  # all pass through the server's link
    assert run.makespan == pytest.approx(2 * fed.round_time(4000, [(share, 15.0, share)] * clients))


def test_h7_one_slow_uplink_keeps_the_round_waiting():
    fast, phone = (inf, 0.0, inf), (inf, 0.0, 125e3)
    assert fed.round_time(25e6, [fast] * 99 + [phone]) == 200.0
