"""Local and federated methods: what theory says of drift, staleness, bytes and time; and what stays secret."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache, partial
from math import inf, sqrt

import numpy as np
import pytest
import torch
from cases import problem
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import noise, rules, theory
from simulator import theory as fed
from simulator.strategies.local.gaussian_noise import Noised
from simulator.strategies.local.secure_aggregation import Decoded, Encoded, Masked

A, X = (1.0, 10.0), (0.0, 1.0)
"""Curvatures and minima of two clients (H1)."""


class Bowl(torch.nn.Module):
    """A number x; every sample (a, m) has the loss a/2 (x - m)²."""

    def __init__(self, start: float):
        super().__init__()
        self.x = torch.nn.Parameter(torch.tensor([start], dtype=torch.float64))

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        """From ``[samples, 2]`` to ``[samples]``."""
        return sample[:, 0] / 2 * (self.x - sample[:, 1]) ** 2


class Slope(torch.nn.Module):
    """Numbers x; every sample has the loss x · sample, so that gradients are the data."""

    def __init__(self, size: int):
        super().__init__()
        self.x = torch.nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        """From ``[samples, size]`` to ``[samples]``."""
        return sample @ self.x


def mean(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The loss of both."""
    return output.mean()


def bowls(curvatures=A, minima=X, lr: float = 0.05, start: float = 0.3) -> sim.Problem:
    """A client for each bowl: the batch has a sample for each, always the same."""
    samples = torch.tensor([curvatures, minima], dtype=torch.float64).T.contiguous()
    return sim.Problem(
        blocks=lambda: [Bowl(start)],
        loss=mean,
        data=lambda seed, step: (samples, torch.zeros(len(samples))),
        rule=rules.SGD(lr),
        dtype="float64",
    )


def slopes(ranks: int, until: int = 100, lr: float = 0.1) -> sim.Problem:
    """Gradients that differ from worker to worker, and are zero from a step on."""

    def data(seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(ranks, 4, dtype=torch.float64) * (step < until), torch.zeros(ranks)

    return sim.Problem(lambda: [Slope(4)], mean, data, rule=rules.SGD(lr), dtype="float64")


def learn(strategy, workload: sim.Problem, ranks: int, steps: int, **knobs) -> sim.Run:
    """On a free network, so that nothing but the strategy matters."""
    return sim.simulate(strategy, workload, sim.cluster("ideal", ranks=ranks), steps=steps, seed=1, **knobs)


def found(run: sim.Run) -> float:
    """The one parameter of a bowl."""
    return float(run.parameters["0.x"][0])


def apart(a: sim.Run, b: sim.Run) -> float:
    """The largest difference of any parameter."""
    return max(float(np.max(np.abs(a.parameters[name] - b.parameters[name]))) for name in a.parameters)


@cache
def single(name: str, rule: rules.Rule | None = None, steps: int = 6) -> sim.Run:
    """What a single process learns."""
    return learn(sim.Single(rule=rule), problem(name), 1, steps)


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
    rounds = fed.rounds(steps, period)
    assert run.bytes_sent == pytest.approx([fed.local_sgd_bytes(ranks, 12000, steps, period)] * ranks)
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
    assert run.bytes_sent[0] / run.makespan == pytest.approx(fed.diloco_bandwidth(8, 2000, 50, 1.0), rel=1e-12)
    assert fed.diloco_bandwidth(8, 2e9, 500, 1.0) == 7e6 and fed.diloco_bandwidth(8, 2e9, 1, 1.0) == 3.5e9


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


# ---------------------------------------------------------------- asynchronous ones (H4, H5, D4)


def test_h4_weights_fall_with_staleness():
    assert sim.PolynomialWeight(0.5)(4) == pytest.approx(0.447, abs=5e-4)
    hinge = sim.HingeWeight(10, 4)
    assert hinge(4) == 1 and hinge(15) == pytest.approx(1 / 111) and sim.ConstantWeight()(99) == 1


@settings(max_examples=50, deadline=None)
@given(late=st.integers(0, 1000), power=st.floats(0.0, 3.0), slope=st.floats(0.0, 20.0), grace=st.integers(0, 10))
def test_weights_are_one_when_fresh_and_never_grow(late: int, power: float, slope: float, grace: int):
    for weight in (sim.PolynomialWeight(power), sim.HingeWeight(slope, grace), sim.ConstantWeight()):
        assert weight(0) == 1 and 0 < weight(late + 1) <= weight(late) <= 1


BUSY = sim.Model.of_times(blocks=1, forward=0.25, backward=0.75, batch=1000)


def while_all_work(run: sim.Run) -> list[int]:
    """Staleness of the reports that came before the first client had made all its steps."""
    ends = np.zeros(run.ranks)
    for span in run.spans:
        ends[span.rank] = max(ends[span.rank], span.end)
    until = ends[1:].min()
    return [int(s.value) for s in run.samples if s.name == "staleness" and s.time < until]


@pytest.mark.parametrize("clients, buffer, steps, mean", [(100, 10, 60, 9.90), (64, 64, 80, 0.984), (12, 5, 400, 2.2)])
def test_d4_h5_mean_staleness_behind_a_buffer(clients: int, buffer: int, steps: int, mean: float):
    assert fed.fedbuff_staleness(clients, buffer) == pytest.approx(mean, abs=5e-4)
    strategy = sim.FedBuff(buffer, local_steps=1)
    cluster = sim.cluster("ideal", ranks=clients + 1)
    late = while_all_work(sim.simulate(strategy, BUSY, cluster, steps=steps, noise=noise.exponential()))
    settled = late[len(late) // 10 :]
    assert len(settled) > 3000 and np.mean(settled) == pytest.approx(mean, rel=0.01)


def test_fedasync_is_as_stale_as_its_clients_are_many():
    cluster = sim.cluster("ideal", ranks=9)
    late = while_all_work(sim.simulate(sim.FedAsync(local_steps=2), BUSY, cluster, steps=800, noise=noise.gamma(4.0)))
    assert np.mean(late[100:]) == pytest.approx(fed.fedasync_staleness(8), rel=0.01)


def rounds_of_bowls(strategy: sim.FedAsync | sim.FedBuff, steps: int) -> tuple[sim.Run, list[tuple[int, int]]]:
    """A run with a fast and a slow client, and (client, staleness) of each report."""
    run = learn(strategy, bowls(), 3, steps, noise=noise.slow({1: 1.0, 2: 2.7}))
    sources = [int(source) for source in run.outcomes[0]]
    return run, list(zip(sources, run.staleness, strict=True))


def trained(x: float, client: int, steps: int) -> float:
    """What a client of the bowls makes of x."""
    return X[client - 1] + (1 - 0.05 * A[client - 1]) ** steps * (x - X[client - 1])


def test_fedasync_mixes_by_staleness():
    strategy = sim.FedAsync(0.6, sim.HingeWeight(2.0, 1), local_steps=4)
    run, reports = rounds_of_bowls(strategy, 24)
    x, has = 0.3, {1: 0.3, 2: 0.3}
    for client, late in reports:
        share = 0.6 * strategy.weight(late)
        x = has[client] = (1 - share) * x + share * trained(has[client], client, 4)
    assert {late for _, late in reports} >= {0, 1, 2} and found(run) == pytest.approx(x, rel=1e-12)


def test_fedasync_with_a_spring_stays_nearer():
    free, tied = (found(rounds_of_bowls(sim.FedAsync(0.6, mu=mu, local_steps=8), 8)[0]) for mu in (0.0, 8.0))
    assert abs(tied - 0.3) < 0.7 * abs(free - 0.3)


def test_fedbuff_moves_once_per_buffer_and_answers_at_once():
    strategy = sim.FedBuff(3, server_lr=0.5, local_steps=4)
    run, reports = rounds_of_bowls(strategy, 28)
    x, has, total = 0.3, {1: 0.3, 2: 0.3}, 0.0
    assert len(reports) == 14  # so that the last buffer is not full
    for number, (client, late) in enumerate(reports, 1):
        total += (1 + late) ** -0.5 * (trained(has[client], client, 4) - has[client]) / 3
        if number % 3 == 0 or number == len(reports):
            x, total = x + 0.5 * total, 0.0
        has[client] = x
    assert {late for _, late in reports} >= {0, 1} and found(run) == pytest.approx(x, rel=1e-12)


# ---------------------------------------------------------------- secure aggregation


@dataclass(frozen=True, eq=False)
class Eavesdropper:
    """Keeps what it is shown."""

    seen: list[torch.Tensor] = field(default_factory=list)

    def __call__(self, update: torch.Tensor) -> None:
        """Nothing is changed."""
        self.seen.append(update.clone())


@dataclass(frozen=True)
class Overheard(sim.Layer):
    """Somebody listens to all that clients send."""

    who: Eavesdropper

    def rules(self, me: sim.Rank) -> sim.Rules:
        def send(send: sim.Send):
            if me.share is not None:
                yield sim.Compute(self.who, (send.value,))
            yield send

        return {sim.Send: send}


def overhear(*layers: sim.Layer, order=None, steps: int = 2, ranks: int = 4) -> tuple[sim.Run, list[torch.Tensor]]:
    """A run, and what its clients sent."""
    who = Eavesdropper()
    run = learn(sim.stack(order or sim.FedAvg(local_steps=2), *layers, Overheard(who)), problem("mlp"), ranks, steps)
    return run, who.seen


@pytest.mark.parametrize("method", [sim.FedAvg, partial(sim.FedProx, 0.1), sim.SCAFFOLD])
def test_masks_cancel_in_the_sum(method):
    order = method(local_steps=2)
    plain, masked = (learn(s, problem("mlp"), 4, 6) for s in (order, sim.stack(order, sim.SecureAggregation())))
    assert apart(plain, masked) <= 1e-10 and masked.bytes_sent == plain.bytes_sent


def test_no_message_alone_tells_anything():
    (_, plain), (_, masked) = overhear(), overhear(sim.SecureAggregation())
    assert len(plain) == len(masked) == 3
    for clear, hidden in zip(plain, masked, strict=True):
        assert hidden.dtype == torch.int64
        uniform = hidden.double() / 2.0**63
        assert abs(float(uniform.mean())) < 4 / sqrt(3 * hidden.numel())
        assert float(uniform.pow(2).mean()) == pytest.approx(1 / 3, rel=0.15)
        assert abs(float(torch.corrcoef(torch.stack([clear, uniform]))[0, 1])) < 4 / sqrt(hidden.numel())
    coded = sum(Encoded(40)(clear) for clear in plain)
    assert torch.equal(sum(masked), coded)  # not even by rounding
    assert not torch.equal(masked[0] + masked[1], Encoded(40)(plain[0]) + Encoded(40)(plain[1]))  # two of three


def test_masks_are_new_in_every_round_and_for_every_seed():
    _, seen = overhear(sim.SecureAggregation(), steps=4)
    other, others = overhear(sim.SecureAggregation(seed=1), steps=4)
    assert len({tuple(update[:4].tolist()) for update in [*seen, *others]}) == 12
    assert apart(other, learn(sim.FedAvg(local_steps=2), problem("mlp"), 4, 4)) <= 1e-10


@settings(max_examples=25, deadline=None)
@given(
    numbers=st.lists(st.floats(-100, 100), min_size=1, max_size=5),
    clients=st.integers(2, 6),
    wide=st.booleans(),
    bits=st.integers(8, 20),
)
def test_any_numbers_survive_masking(numbers: list[float], clients: int, wide: bool, bits: int):
    update = torch.tensor(numbers, dtype=torch.float64 if wide else torch.float32)
    cohort = tuple(range(1, clients + 1))
    masks = [Masked(Encoded(bits, clients), me, cohort, (7, 0)) for me in cohort]
    total = Decoded(bits)(sum(mask(update) for mask in masks))
    assert total.dtype == update.dtype
    torch.testing.assert_close(total, clients * update, rtol=1e-6, atol=clients * 2.0**-bits)


def test_single_precision_is_masked_in_messages_of_the_same_size():
    digits = sim.problem("digits-mlp", hidden=8, batch=24)
    order = sim.FedAvg(local_steps=2)
    plain, masked = (learn(s, digits, 4, 4) for s in (order, sim.stack(order, sim.SecureAggregation())))
    assert 0 < apart(plain, masked) <= 1e-5 and plain.bytes_sent == masked.bytes_sent


def test_updates_too_large_for_the_sum_are_refused():
    with pytest.raises(ValueError, match=r"wraps around; got .* use fewer bits"):
        learn(sim.stack(sim.FedAvg(), sim.SecureAggregation(bits=52)), slopes(3, lr=1e5), 4, 2)
    with pytest.raises(ValueError, match="stay below 1024"):
        Encoded(20, clients=2)(torch.tensor([1024.0]))


# ---------------------------------------------------------------- clipping and noise


def test_what_leaves_a_client_is_clipped():
    _, plain = overhear()
    _, clipped = overhear(sim.GaussianNoise(clip=0.01, sigma=0.0))
    for before, after in zip(plain, clipped, strict=True):
        assert before.norm() > 0.01 and after.norm() == pytest.approx(0.01)
        torch.testing.assert_close(after, before * (0.01 / before.norm()))


def test_updates_within_the_clip_are_left_alone():
    free, wide = (
        learn(s, problem("mlp"), 4, 4)
        for s in (sim.FedAvg(local_steps=2), sim.stack(sim.FedAvg(local_steps=2), sim.GaussianNoise(1e3, 0.0)))
    )
    assert apart(free, wide) == 0


def test_noise_has_the_deviation_that_was_asked_for():
    draws = torch.stack([Noised(0.5, 2.0, (0, client))(torch.zeros(4000, dtype=torch.float64)) for client in range(16)])
    assert draws.std() == pytest.approx(1.0, rel=0.02) and abs(draws.mean()) < 4 / sqrt(draws.numel())
    assert draws.sum(0).std() == pytest.approx(fed.noise_of_sum(0.5, 2.0, 16), rel=0.05)
    assert abs(np.corrcoef(draws[:2].numpy())[0, 1]) < 4 / sqrt(4000)


def test_noise_is_drawn_anew_and_repeats_with_its_seed():
    noisy = [overhear(sim.GaussianNoise(1.0, 1.0, seed), steps=4) for seed in (0, 0, 1)]
    assert apart(noisy[0][0], noisy[1][0]) == 0 and apart(noisy[0][0], noisy[2][0]) > 0.1
    assert len({float(update[0]) for update in noisy[0][1]}) == 6


def test_noise_and_masks_go_together_and_in_that_order():
    order, noisy = sim.FedAvg(local_steps=2), sim.GaussianNoise(0.1, 0.5)
    layers = (noisy,), (noisy, sim.SecureAggregation())
    alone, both = (learn(sim.stack(order, *some), problem("mlp"), 4, 4) for some in layers)
    assert apart(alone, both) <= 1e-10
    with pytest.raises(ValueError, match="noise comes first"):
        sim.validate(sim.stack(order, sim.SecureAggregation(), noisy), 4)


def test_noise_works_behind_a_buffer():
    quiet, loud = (
        learn(sim.stack(sim.FedBuff(2, local_steps=1), sim.GaussianNoise(1.0, sigma)), problem("mlp"), 4, 4)
        for sigma in (0.0, 0.5)
    )
    assert apart(quiet, loud) > 0.1


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
