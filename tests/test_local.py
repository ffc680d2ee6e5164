"""Local methods: local SGD, DiLoCo, elastic averaging; and what all local and federated ones refuse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from cases import problem
from common.federated import A, X, bowls, found, learn, single, slopes
from common.runs import apart
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import rules, theory

# ---------------------------------------------------------------- local SGD (D18)


@pytest.mark.parametrize("period", [1, 3, 5, 100])
@pytest.mark.parametrize("ranks", [2, 4])
def test_d18_on_the_same_deterministic_data_any_period_is_gradient_descent(ranks: int, period: int):
    bowl = sim.problem("quadratic", dtype="float64", spectrum=(1.0, 0.1, 0.3), noise=0.0, batch=8)
    ours, alone = (learn(s, bowl, n, 10) for s, n in ((sim.LocalSGD(period), ranks), (sim.Single(), 1)))
    assert apart(ours, alone) <= 1e-12 and ours.losses == pytest.approx(alone.losses, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(steps=st.integers(1, 20), period=st.integers(1, 25), ranks=st.integers(2, 6))
def test_d18_bytes_fall_with_the_period_and_time_is_rounds_of_a_ring(steps: int, period: int, ranks: int):
    model = sim.Model.of_times(blocks=2, forward=1.0, backward=2.0, parameters=3000, batch=ranks)
    cluster = sim.Cluster.flat(ranks=ranks, bandwidth=1e3, latency=0.01)
    run = sim.simulate(sim.LocalSGD(period), model, cluster, steps=steps)
    rounds = theory.rounds(steps, period)
    assert run.bytes_sent == pytest.approx([theory.local_sgd_bytes(ranks, 12000, steps, period)] * ranks)
    ring = theory.ring_all_reduce(ranks, 12000, 1e3, 0.01)
    assert run.makespan == pytest.approx(steps * 6.0 + rounds * ring)


def test_replicas_that_never_meet_drift_and_meet_after_the_last_step():
    run = learn(sim.LocalSGD(100), problem("mlp"), 3, 6)
    assert not run.notes and apart(run, single("mlp")) > 1e-3
    assert sum("AllReduce" in span.instruction for span in run.spans) == 3


def test_momentum_is_linear_so_averaging_parameters_every_step_averages_gradients():
    rule = rules.Momentum(0.02)
    assert apart(learn(sim.LocalSGD(1, rule=rule), problem("mlp"), 3, 6), single("mlp", rule)) <= 1e-9


@pytest.mark.parametrize("start, same", [(0, sim.LocalSGD(2)), (6, sim.DataParallel()), (100, sim.DataParallel())])
def test_post_local_sgd_begins_and_ends_as_what_it_is_made_of(start: int, same: sim.Layer):
    ours, theirs = (learn(s, problem("mlp"), 3, 6) for s in (sim.PostLocalSGD(2, start=start), same))
    assert apart(ours, theirs) == 0 and ours.bytes_sent == theirs.bytes_sent


def test_post_local_sgd_counts_its_rounds_from_the_start():
    run = learn(sim.PostLocalSGD(period=3, start=2), problem("mlp"), 2, 9)
    met = [s.step for s in run.spans if s.rank == 0 and s.instruction.startswith("AllReduce Params")]
    averaged = {s.step for s in run.spans if s.rank == 0 and s.instruction.startswith("AllReduce Grads")}
    assert met == [4, 7, 8] and averaged == {0, 1}


# ---------------------------------------------------------------- DiLoCo (D19, D20)


def test_diloco_with_plain_averaging_is_local_sgd():
    for period in (1, 3):
        outer = sim.DiLoCo(period, outer_lr=1.0, outer_momentum=0.0)
        assert apart(learn(outer, problem("mlp"), 3, 6), learn(sim.LocalSGD(period), problem("mlp"), 3, 6)) <= 1e-12


@pytest.mark.parametrize("nesterov", [True, False])
def test_diloco_that_meets_every_step_is_one_process_with_momentum(nesterov: bool):
    """The mean move is lr · g, so the outer step is momentum's own, at the product of both rates."""
    outer = sim.DiLoCo(1, outer_lr=0.7, outer_momentum=0.9, nesterov=nesterov, rule=rules.SGD(0.1))
    expected = single("mlp", rules.Momentum(0.07, beta=0.9, nesterov=nesterov))
    assert apart(learn(outer, problem("mlp"), 3, 6), expected) <= 1e-12


def test_d20_mean_bandwidth_of_diloco():
    model = sim.Model.of_times(blocks=1, forward=0.25, backward=0.75, parameters=1000, parameter_bytes=2, batch=8)
    run = sim.simulate(sim.DiLoCo(period=50), model, sim.cluster("ideal", ranks=8), steps=150)
    assert run.bytes_sent[0] / run.makespan == pytest.approx(theory.diloco_bandwidth(8, 2000, 50, 1.0), rel=1e-12)
    assert theory.diloco_bandwidth(8, 2e9, 500, 1.0) == 7e6 and theory.diloco_bandwidth(8, 2e9, 1, 1.0) == 3.5e9


def test_d19_diloco_reaches_a_comparable_loss_with_a_fraction_of_the_bytes():
    digits = sim.problem("digits-mlp", hidden=16, batch=64)
    inner = rules.Adam(6e-3, weight_decay=0.1)
    runs = [learn(s, digits, 4, 150) for s in (sim.DiLoCo(period=10, rule=inner), sim.DataParallel(rule=inner))]
    ours, theirs = (digits.evaluate(run.parameters)["accuracy"] for run in runs)
    assert theirs > 0.8 and ours > theirs - 0.05
    assert runs[0].bytes_sent[0] * 10 == pytest.approx(runs[1].bytes_sent[0])


# ---------------------------------------------------------------- EASGD (D21)


@dataclass(frozen=True)
class Watched(sim.Layer):
    """Notes the centre and a replica's parameters after every update."""

    def rules(self, me: sim.Rank) -> sim.Rules:
        def watch(update: sim.Update):
            yield update
            yield sim.Measure("centre", first, (sim.Named("centre"),))
            yield sim.Measure("replica", first, (update.params,))

        return {sim.Update: watch}


def first(tensor: torch.Tensor) -> float:
    """Its first number."""
    return float(tensor[0])


def watched(strategy: sim.Layer, workload: sim.Problem, ranks: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """(centre by step, replicas by step and rank)."""
    run = learn(sim.stack(strategy, Watched()), workload, ranks, steps)
    centre, replicas = np.full(steps, np.nan), np.full((steps, ranks), np.nan)
    for sample in run.samples:
        if sample.name == "centre" and sample.rank == 0:
            centre[sample.step] = sample.value
        elif sample.name == "replica":
            replicas[sample.step, sample.rank] = sample.value
    return centre, replicas


@pytest.mark.parametrize("period, alpha", [(1, None), (1, 0.1), (3, 0.2)])
def test_d21_springs_conserve_the_sum_of_centre_and_replicas(period: int, alpha: float | None):
    centre, replicas = watched(sim.EASGD(period, alpha), slopes(ranks=4, until=4), 4, 12)
    total = centre + replicas.sum(1)
    assert abs(np.diff(total[:4])).min() > 1e-3  # gradients move it
    np.testing.assert_allclose(total[3:], total[3], rtol=1e-13)  # springs do not
    assert np.ptp(centre[3:]) > 1e-3 and np.ptp(replicas[3:], axis=0).min() > 1e-3  # though they pull


def test_easgd_does_what_its_equations_say():
    alpha, lr, steps = 0.3, 0.05, 8
    x, c, expected = np.full(2, 0.3), 0.3, []
    for _ in range(steps):
        pull = alpha * (x - c)
        x, c = x - lr * np.array(A) * (x - np.array(X)) - pull, c + pull.sum()
        expected.append((c, *x))
    centre, replicas = watched(sim.EASGD(1, alpha), bowls(), 2, steps)
    np.testing.assert_allclose(np.column_stack([centre, replicas]), expected, rtol=1e-12)
    assert found(learn(sim.EASGD(1, alpha), bowls(), 2, steps)) == pytest.approx(c, rel=1e-12)


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: sim.LocalSGD(0), "period is a whole number, at least 1; got period=0"),
        (lambda: sim.LocalSGD(2, replicas=0), "replicas is a whole number"),
        (lambda: sim.PostLocalSGD(start=-1), "start is a whole number"),
        (lambda: sim.DiLoCo(outer_lr=0), "outer_lr is a finite number, above 0"),
        (lambda: sim.DiLoCo(outer_momentum=1.0), "outer_momentum < 1; got 1.0"),
        (lambda: sim.EASGD(alpha=-0.1), "alpha is a finite number"),
        (lambda: sim.FedAvg(local_steps=0), "local_steps is a whole number"),
        (lambda: sim.FedAvg(weights=(1, 0)), "weights is a finite number, above 0"),
        (lambda: sim.FedAvg(weights=3), "a number for each client.*got weights=3"),
        (lambda: sim.FedAvg(clients_per_round=0), "clients_per_round is a whole number"),
        (lambda: sim.FedProx(mu=-1), "mu is a finite number"),
        (lambda: sim.FedAsync(mixing=1.5), "0 < mixing <= 1; got mixing=1.5"),
        (lambda: sim.FedAsync(weight=0.5), "weight is one of ConstantWeight"),
        (lambda: sim.FedBuff(buffer=0), "buffer is a whole number"),
        (lambda: sim.PolynomialWeight(-1), "power is a finite number"),
        (lambda: sim.GaussianNoise(clip=0), "clip is a finite number, above 0"),
        (lambda: sim.GaussianNoise(sigma=-1), "sigma is a finite number"),
        (lambda: sim.SecureAggregation(bits=60), "at most 52 binary places; got bits=60"),
    ],
)
def test_wrong_knobs_are_refused(make, says: str):
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize(
    "strategy, ranks, says",
    [
        (sim.FedAvg(), 1, "at least one client more; got ranks=1"),
        (sim.FedAvg(clients_per_round=4), 4, "than there are, 3; got clients_per_round=4"),
        (sim.FedAvg(weights=(1, 2)), 4, "got 2 weights for 3 client"),
        (sim.EASGD(alpha=0.5), 3, "alpha=0.5 with 3 replicas: use alpha=0.3"),
        (sim.GaussianNoise(), 1, "stands over an order with a server and clients"),
        (sim.stack(sim.Pipeline(), sim.SecureAggregation()), 2, "stands over an order with a server and clients"),
        (sim.stack(sim.FedAsync(), sim.GaussianNoise()), 3, "would give its model away"),
        (sim.stack(sim.FedAsync(), sim.SecureAggregation()), 3, "would give its model away"),
        (sim.stack(sim.FedBuff(), sim.SecureAggregation()), 3, "reads every update alone"),
        (sim.stack(sim.FedAvg(), sim.SecureAggregation()), 2, "a round of one client is its update"),
    ],
)
def test_what_does_not_fit_is_refused(strategy, ranks: int, says: str):
    with pytest.raises(ValueError, match=says):
        sim.validate(strategy, ranks)


def test_a_client_without_a_sample_is_refused():
    with pytest.raises(ValueError, match="leave none to client 0: use a larger batch"):
        learn(sim.FedAvg(weights=(1, 1000)), bowls(), 3, 1)
