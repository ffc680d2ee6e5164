"""Devices of different speeds: what even shares of the batch cost, and what balancing gives back."""

from __future__ import annotations

from itertools import product
from math import ceil

import numpy as np
import pytest
from common.speeds import machines, model, seconds
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import noise, theory

# ---------------------------------------------------------------- shares of the batch


def test_even_shares_wait_for_the_slowest_and_balanced_ones_for_nobody():
    """Even: batch/n on the slowest device. Balanced: batch over the sum of all speeds. 3 TFLOP a sample."""
    cluster, work = machines(3.0, 1.0, 1.0, 1.0), model(batch=60)
    assert seconds(sim.DataParallel(), work, cluster) == pytest.approx(60 / 4 * 3 / 1.0)
    shares = sim.balanced(cluster, work)
    assert shares == (30, 10, 10, 10)
    run = sim.simulate(sim.stack(sim.DataParallel(), sim.Shares(shares)), work, cluster, steps=1)
    assert run.makespan == pytest.approx(60 * 3 / 6.0) and run.slices == shares
    assert run.busy == pytest.approx([30.0] * 4)


@pytest.mark.parametrize("strategy", [sim.DataParallel(), sim.Sharded(2), sim.Sharded(3), sim.Gossip()], ids=str)
def test_balancing_helps_every_synchronous_strategy(strategy: sim.Layer):
    cluster, work = machines(3.0, 1.0, 1.0, 1.0), model(batch=60)
    whole = sim.stack(strategy, sim.Shares(sim.balanced(cluster, work)))
    assert seconds(whole, work, cluster) == pytest.approx(seconds(strategy, work, cluster) * 30 / 45)


def test_workers_behind_a_server_are_balanced_too():
    cluster, work = machines(9.0, 3.0, 1.0), model(batch=40)
    shares = sim.balanced(cluster.subset([1, 2]), work)
    assert shares == (30, 10)
    assert seconds(sim.stack(sim.ParameterServer(), sim.Shares(shares)), work, cluster) == pytest.approx(30.0)


@settings(max_examples=60, deadline=None)
@given(
    speeds=st.lists(st.sampled_from([0.5, 1.0, 1.7, 3.0]), min_size=1, max_size=4),
    batch=st.integers(4, 18),
    overhead=st.sampled_from([0.0, 2.0]),
)
def test_no_other_shares_are_done_sooner(speeds: list[float], batch: int, overhead: float):
    """Against all ways to share so many samples out."""
    cluster, work = machines(*speeds), model(batch=batch, overhead=overhead)

    def longest(shares: tuple[int, ...]) -> float:
        (block,) = work.blocks
        devices = [cluster.device_of(rank) for rank in range(cluster.ranks)]
        return max(block.forward.of(n, device) + block.backward.of(n, device) for n, device in zip(shares, devices))

    found = sim.balanced(cluster, work)
    assert sum(found) == batch and min(found) >= 1
    ways = (way for way in product(range(1, batch + 1), repeat=len(speeds)) if sum(way) == batch)
    assert longest(found) <= min(map(longest, ways)) * (1 + 1e-9)


def test_where_time_does_not_depend_on_samples_shares_are_even():
    assert sim.balanced(machines(3.0, 1.0, 1.0), sim.Model.of_times(batch=10)) == (4, 3, 3)


def test_a_worker_of_several_ranks_is_as_fast_as_its_slowest():
    work = model(batch=40)
    assert sim.balanced(machines(3.0, 3.0, 3.0, 1.0), work, workers=2) == (30, 10)
    assert sim.balanced(machines(3.0, 1.0, 1.0, 1.0), work, workers=2) == (20, 20)


@pytest.mark.parametrize("name", ["gpt3-125m", "resnet-50"])
def test_balanced_shares_pay_on_mixed_generations(name: str):
    """Two machines of 8 A100 and of 8 H100: even shares leave the newer ones idle for a good part of the time."""
    cluster, work = sim.cluster("mixed", nodes=2), sim.model(name, batch=192)
    shares = sim.balanced(cluster, work)
    assert len(set(shares)) == 2 and min(shares[8:]) >= 1.5 * max(shares[:8]) and sum(shares) == 192
    even = sim.simulate(sim.DataParallel(), work, cluster, steps=1)
    fair = sim.simulate(sim.stack(sim.DataParallel(), sim.Shares(shares)), work, cluster, steps=1)
    assert max(even.busy) / min(even.busy) > 1.4 and max(fair.busy) / min(fair.busy) < 1.2
    assert fair.makespan < 0.9 * even.makespan


def test_the_gradient_is_that_of_the_batch_whatever_the_shares():
    """The laws of the table, on both clocks, hold too: see tests/cases/heterogeneous.py."""
    problem = sim.problem("digits-mlp", dtype="float64", hidden=8, batch=30)
    alone = sim.simulate(sim.Single(), problem, sim.cluster("ideal", ranks=1), steps=3)
    run = sim.simulate(
        sim.stack(sim.DataParallel(), sim.Shares((1, 4, 1))), problem, sim.cluster("ideal", ranks=3), steps=3
    )
    assert run.slices == (5, 20, 5) and run.losses == pytest.approx(alone.losses, abs=1e-12)
    assert all(np.allclose(run.parameters[name], alone.parameters[name], atol=1e-12) for name in alone.parameters)


def test_folding_keeps_workers_with_other_shares_apart():
    """Ranks with as many samples are alike, and only these."""
    cluster = sim.cluster("ideal", ranks=8)
    strategy = sim.stack(sim.DataParallel(), sim.Shares((2, 2, 2, 2, 1, 1, 1, 1)))
    runs = [sim.simulate(strategy, model(batch=48), cluster, steps=2, fold=fold) for fold in (True, False)]
    assert runs[0].makespan == pytest.approx(runs[1].makespan, rel=1e-9)
    assert runs[0].busy == pytest.approx(runs[1].busy, rel=1e-9)


def test_shares_and_the_data_of_clients_are_rounded_alike():
    """Ten times 0.1, one after another, add up to less than 1: so the half of 25 samples was 12 here and 13 there."""
    weights, work = (0.1,) * 10, model(batch=25)
    shared = sim.simulate(sim.stack(sim.DataParallel(), sim.Shares(weights)), work, sim.cluster("ideal", ranks=10))
    clients = sim.simulate(sim.FedAvg(weights=weights), work, sim.cluster("ideal", ranks=11))
    assert shared.shares == clients.shares and sum(shared.shares[:5]) == 12


@pytest.mark.parametrize(
    "strategy, ranks, batch, said",
    [
        (sim.stack(sim.DataParallel(), sim.Shares((1, 2))), 3, 60, "a weight for each of 3"),
        (sim.stack(sim.DataParallel(), sim.Shares((1, 1000))), 2, 60, "needs a sample"),
        (sim.stack(sim.Single(microbatches=4), sim.DataParallel(), sim.Shares((1, 2))), 2, 9, "4 microbatch"),
        (sim.stack(sim.FedAvg(), sim.Shares((1, 2))), 3, 60, "learn for themselves"),
    ],
)
def test_shares_that_do_not_fit_are_refused(strategy: sim.Stack, ranks: int, batch: int, said: str):
    with pytest.raises(ValueError, match=said):
        sim.simulate(strategy, model(batch=batch), sim.cluster("ideal", ranks=ranks), steps=1)


def test_what_is_wrong_with_balancing_is_said():
    for make, said in (
        (lambda: sim.Shares(()), "got none"),
        (lambda: sim.Shares(3), "a number for each worker.*got weights=3"),
        (lambda: sim.Shares((1, 0)), "above 0"),
        (lambda: sim.balanced(machines(1.0, 1.0, 1.0), model(), workers=2), "equally many ranks"),
        (lambda: sim.balanced(machines(1.0, 1.0, 1.0), model(batch=2)), "every worker needs a sample"),
        (lambda: sim.balanced_stages(machines(1.0, 1.0), model(blocks=1)), "every stage needs a block"),
        (lambda: sim.balanced(model(), machines(1.0)), "cluster is a Cluster, and stands before the model"),
        (lambda: sim.balanced_stages(machines(1.0), "gpt2-small"), "model is a Model, and stands after the cluster"),
        (lambda: sim.Pipeline(split=(1, 0)), "at least 1"),
    ):
        with pytest.raises(ValueError, match=said):
            make()


# ---------------------------------------------------------------- F11: equal devices that are not


def test_f11_synchronous_training_runs_at_the_speed_of_the_worst_device():
    law, ranks = noise.silicon(0.02), 64
    run = sim.simulate(
        sim.DataParallel(), sim.Model.of_times(1, 0.25, 0.75), sim.cluster("ideal", ranks=ranks), steps=5, noise=law
    )
    factors = [law.factor(rank, 0)(0) for rank in range(ranks)]
    assert run.makespan == pytest.approx(5 * max(factors), rel=1e-12)
    assert 1.03 < max(factors) < theory.slowest_normal(ranks, 0.02) + 0.02
    assert ceil(100 * (max(factors) - 1)) in (4, 5, 6, 7)
