"""Federated methods whose clients do not wait for each other."""

from __future__ import annotations

import numpy as np
import pytest
from common.federated import A, X, bowls, found, learn
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import noise
from simulator import theory as fed


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
