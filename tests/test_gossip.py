"""Decentralised training: how fast averages spread (D22 to D26), and what gossip and AD-PSGD do with a gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Timer

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lab
import simulator as sim
from lab.desk import Desk
from lab.transport import Arrived
from simulator import graphs, noise
from simulator.strategies.ad_psgd import MODEL, asked, partners

FLAT = sim.problem("quadratic", spectrum=(0.0,), noise=0.0, dtype="float64", batch=32)
"""A problem without a slope: only averaging moves its one parameter."""


def matrix(graph: object, ranks: int) -> np.ndarray:
    """The mixing matrix of a graph that is the same in every round."""
    (mixing,) = graphs.rounds(graphs.as_graph(graph), ranks)
    return mixing.matrix


# ---------------------------------------------------------------- D22 to D25: graphs


@given(graph=st.sampled_from([*graphs.GRAPHS]), ranks=st.integers(1, 40))
def test_every_graph_keeps_agreement_and_average(graph: str, ranks: int):
    for mixing in graphs.rounds(graph, ranks):
        full = mixing.matrix
        assert full.min() >= 0 and full.sum(0) == pytest.approx(1) and full.sum(1) == pytest.approx(1)
        for rank, readers in enumerate(mixing.readers):
            assert set(readers) == {*np.flatnonzero(full[:, rank])} - {rank}
        assert all(next(iter(row)) == rank for rank, row in enumerate(mixing.rows))


@pytest.mark.parametrize("ranks", [*range(3, 30), 64])
def test_d22_gap_of_a_ring(ranks: int):
    assert graphs.spectral_gap(matrix("ring", ranks)) == pytest.approx(graphs.ring_gap(ranks), abs=1e-12)


def test_d22_to_d24_the_examples():
    assert [graphs.ring_gap(n) for n in (8, 16, 64)] == pytest.approx([0.1953, 0.05075, 0.00321], abs=5e-5)
    assert [graphs.torus_gap(side) for side in (4, 8)] == pytest.approx([0.4, 0.11716], abs=5e-6)
    assert [graphs.exponential_gap(n) for n in (8, 16, 64)] == pytest.approx([0.5, 0.4, 0.2857], abs=5e-5)


@pytest.mark.parametrize("side", range(3, 9))
def test_d23_gap_of_a_torus(side: int):
    assert graphs.spectral_gap(matrix("torus", side**2)) == pytest.approx(graphs.torus_gap(side), abs=1e-12)


@pytest.mark.parametrize("ranks", [2, 4, 6, 8, 12, 16, 18, 64])
def test_d24_gap_of_an_exponential_graph(ranks: int):
    assert graphs.spectral_gap(matrix("exponential", ranks)) == pytest.approx(graphs.exponential_gap(ranks), abs=1e-12)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 33])
def test_d25_one_peer_is_exact_after_log_n_rounds_if_n_is_a_power_of_two(ranks: int):
    whole = np.eye(ranks)
    for mixing in graphs.rounds("one-peer", ranks):
        whole = mixing.matrix @ whole
    error = np.abs(whole - 1 / ranks).max()
    assert error == pytest.approx(graphs.one_peer_error(ranks), abs=1e-15)
    assert (error == 0) == (ranks.bit_count() == 1)
    assert graphs.one_peer_error(12) == pytest.approx(0.0417, abs=5e-5)


def test_a_complete_graph_averages_at_once_and_a_prime_torus_is_a_ring():
    assert graphs.spectral_gap(matrix("complete", 9)) == pytest.approx(1)
    assert (matrix("torus", 7) == matrix("ring", 7)).all()
    assert (matrix(nx.cycle_graph(6), 6) == matrix("ring", 6)).all()


@given(st.integers(2, 12), st.randoms(use_true_random=False))
def test_weights_of_any_connected_graph_are_symmetric_and_contract(ranks: int, random):
    graph = nx.path_graph(ranks)
    graph.add_edges_from(random.sample(range(ranks), 2) for _ in range(random.randrange(ranks)))
    full = matrix(graph, ranks)
    assert (full == full.T).all() and full.min() >= 0 and 0 < graphs.spectral_gap(full) <= 1 + 1e-12


# ---------------------------------------------------------------- D26: consensus in runs


@dataclass(frozen=True)
class Apart(sim.Layer):
    """Begin with parameters that differ by rank, and measure them at the beginning of steps and when they are set."""

    starts: tuple[float, ...] = ()

    def rules(self, me: sim.Rank) -> sim.Rules:
        mine, fresh = sim.Params(me.blocks), [True]
        measure = sim.Measure("x", torch.Tensor.item, mine)

        def begin(first: sim.Instruction) -> sim.Program:
            if fresh.pop() if fresh else False:
                yield sim.Compute(Filled(self.starts[me.rank]), mine, mine)
            yield first
            if isinstance(first, sim.Load) or mine in first.writes:
                yield measure

        return {sim.Load: begin, sim.Copy: begin}


@dataclass(frozen=True)
class Filled:
    """A number in the place of every other."""

    number: float

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        """Of the same shape."""
        return torch.full_like(tensor, self.number)


def measured(strategy: Callable[[Apart], sim.Stack], starts: np.ndarray, steps: int) -> list[np.ndarray]:
    """What each rank measured, in its order."""
    whole, cluster = strategy(Apart(tuple(starts))), sim.cluster("ideal", ranks=len(starts))
    run = sim.simulate(whole, FLAT, cluster, steps=steps, noise=noise.gamma(2.0))
    return [np.array([s.value for s in run.samples if s.name == "x" and s.rank == rank]) for rank in range(len(starts))]


@settings(max_examples=25, deadline=None)
@given(
    graph=st.sampled_from([*graphs.GRAPHS]),
    mix=st.sampled_from(["during", "after"]),
    starts=st.lists(st.floats(-10, 10), min_size=1, max_size=9).map(np.array),
)
def test_d26_a_run_multiplies_by_its_mixing_matrices(graph: str, mix: str, starts: np.ndarray):
    rounds, expected = graphs.rounds(graph, len(starts)), starts
    found_by_rank = measured(lambda apart: sim.stack(sim.Gossip(graph, mix=mix), apart), starts, 5)
    for step, found in enumerate(np.transpose(found_by_rank)):
        assert found == pytest.approx(expected, abs=1e-12)
        assert found.mean() == pytest.approx(starts.mean(), abs=1e-12)
        full = rounds[step % len(rounds)].matrix
        rho = 1 - graphs.spectral_gap(full)
        before, expected = np.linalg.norm(expected - starts.mean()), full @ expected
        assert np.linalg.norm(expected - starts.mean()) <= rho * before + 1e-12


@pytest.mark.parametrize(("ranks", "exact"), [(8, True), (6, False)])
def test_d25_in_a_run(ranks: int, exact: bool):
    starts = np.arange(ranks) ** 2 + 0.0
    after = np.transpose(measured(lambda apart: sim.stack(sim.Gossip("one-peer"), apart), starts, 4))[3]
    assert (np.ptp(after) == 0) == exact and after.mean() == pytest.approx(starts.mean())


@settings(max_examples=15, deadline=None)
@given(starts=st.lists(st.floats(-10, 10), min_size=2, max_size=7).map(np.array), seed=st.integers(0, 99))
def test_d26_pairwise_averaging_keeps_the_average_whoever_comes_first(starts: np.ndarray, seed: int):
    ends = np.array([mine[-1] for mine in measured(lambda apart: sim.stack(sim.ADPSGD(seed=seed), apart), starts, 12)])
    assert ends.mean() == pytest.approx(starts.mean(), abs=1e-12)
    assert np.ptp(ends) <= np.ptp(starts) + 1e-12
    if len(starts) == 2:
        assert np.ptp(ends) <= 1e-12


# ---------------------------------------------------------------- learning


def learned(strategy: sim.Layer, ranks: int, problem: sim.Problem, steps: int = 6) -> np.ndarray:
    """All parameters at the end, in one vector."""
    run = sim.simulate(strategy, problem, sim.cluster("ideal", ranks=ranks), steps=steps)
    return np.concatenate([array.ravel() for array in run.parameters.values()])


@pytest.mark.parametrize("mix", ["during", "after"])
@pytest.mark.parametrize("graph", graphs.GRAPHS)
def test_where_slopes_are_linear_the_average_learns_as_data_parallel(graph: str, mix: str):
    bowl = sim.problem("quadratic", spectrum=(1.0, 0.3, 0.1), batch=12, dtype="float64")
    ours, theirs = learned(sim.Gossip(graph, mix=mix, average=True), 6, bowl), learned(sim.DataParallel(), 6, bowl)
    assert ours == pytest.approx(theirs, abs=1e-12)
    one = learned(sim.Gossip(graph, mix=mix), 6, bowl)
    assert (np.abs(one - theirs).max() < 1e-12) == (graph == "complete" and mix == "after")


def test_a_complete_graph_after_the_update_is_data_parallel_and_during_it_is_not():
    digits = sim.problem("digits-mlp", dtype="float64", hidden=8, batch=20)
    truth = learned(sim.DataParallel(), 5, digits)
    assert learned(sim.Gossip("complete", mix="after"), 5, digits) == pytest.approx(truth, abs=1e-12)
    assert np.abs(learned(sim.Gossip("complete", average=True), 5, digits) - truth).max() > 1e-6


def test_a_graph_of_one_s_own_learns_what_the_same_graph_of_the_gallery_does():
    bowl = sim.problem("quadratic", batch=8, dtype="float64")
    truth = learned(sim.Gossip("ring"), 4, bowl)
    for graph in (nx.cycle_graph(4), matrix("ring", 4), matrix("ring", 4).tolist()):
        assert (learned(sim.Gossip(graph), 4, bowl) == truth).all()
    assert sim.Gossip(nx.cycle_graph(4)) == sim.Gossip(matrix("ring", 4))
    turning = np.roll(np.eye(4), 1, axis=1) / 2 + np.eye(4) / 2
    assert (learned(sim.Gossip(turning), 4, bowl) == learned(sim.Gossip(matrix(turning, 4)), 4, bowl)).all()


# ---------------------------------------------------------------- time

SECOND = sim.Model("one second", (sim.Block(1000, sim.Seconds(0.25), sim.Seconds(0.75)),), batch=32)
"""A gradient takes one second; there are 4000 bytes of parameters."""


@pytest.mark.parametrize(("bandwidth", "exchange"), [(20e3, 0.4), (4e3, 2.0)])
def test_parameters_travel_while_gradients_are_computed(bandwidth: float, exchange: float):
    """Two neighbours' parameters, one after another through one's own link."""
    network = sim.Cluster.flat(ranks=6, bandwidth=bandwidth, latency=0.1)
    during, after = (sim.simulate(sim.Gossip("ring", mix=mix), SECOND, network, steps=5) for mix in ("during", "after"))
    assert after.makespan == pytest.approx(5 * (1.0 + exchange + 0.1))
    assert during.makespan == pytest.approx(5 * max(1.0, exchange + 0.1))


def test_a_slow_worker_delays_neighbours_of_neighbours_in_turn_and_nobody_in_ad_psgd():
    def ends(strategy: sim.Layer | sim.Order) -> list[float]:
        run = sim.simulate(strategy, SECOND, sim.cluster("ideal", ranks=8), steps=20, noise=noise.slow({0: 3.0}))
        return [max(span.end for span in run.spans if span.rank == rank) for rank in range(8)]

    # Who is k edges away waits for what the slow one had at the beginning of its k-th last step: the others' gradients
    # are done by then. Mixing after the update, it waits for one step more of the slow one, and then for k - 1 others.
    away = [min(k, 8 - k) for k in range(8)]
    assert ends(sim.DataParallel()) == pytest.approx([60.0] * 8)
    assert ends(sim.Gossip("ring")) == pytest.approx([60.0 - 3 * k for k in away])
    assert ends(sim.Gossip("ring", mix="after")) == pytest.approx([60.0 - 2 * max(0, k - 1) for k in away])
    assert ends(sim.ADPSGD()) == pytest.approx([60.0, *[20.0] * 7])


def test_answers_travel_while_gradients_are_computed():
    run = sim.simulate(sim.ADPSGD(), SECOND, sim.Cluster.flat(ranks=2, bandwidth=10e3, latency=0.01), steps=10)
    assert run.makespan == pytest.approx(10.0)
    slow = sim.simulate(sim.ADPSGD(), SECOND, sim.Cluster.flat(ranks=2, bandwidth=4e3, latency=0.01), steps=10)
    assert slow.makespan == pytest.approx(10 * 2.02)  # there and back takes longer than a gradient


@pytest.mark.parametrize("ranks", [2, 5, 8])
def test_a_passive_worker_s_staleness_counts_the_answers_it_gave_meanwhile(ranks: int):
    run = sim.simulate(sim.ADPSGD(), SECOND, sim.cluster("ideal", ranks=ranks), steps=30, noise=noise.exponential())
    for rank in range(ranks):
        counts = [int(s.value) for s in run.samples if s.name == "staleness" and s.rank == rank]
        answers = [source for source in run.outcomes[rank] if source != rank]
        assert len(counts) == 30
        assert counts == [1] * 30 if rank % 2 else sum(counts) <= len(answers) == asked(0, ranks, 30)[rank]
    assert sum(asked(0, ranks, 30).values()) == 30 * (ranks // 2)


def test_choices_of_a_longer_run_begin_as_those_of_a_shorter():
    assert partners(3, 1, 8, 100)[:10] == partners(3, 1, 8, 10)
    assert {*partners(3, 1, 8, 100)} == {0, 2, 4, 6} and partners(3, 1, 8, 10) != partners(4, 1, 8, 10)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("star", "the graphs of gossip are 'ring'"),
        (3, "a graph is a name, a networkx graph or a matrix"),
        ([[1.0, 0.0]], "as many columns as rows"),
        ([[0.5, 0.5], [0.4, 0.6]], "column 0 sums to 0.9"),
        ([[1.5, -0.5], [-0.5, 1.5]], "at least 0; got weight=-0.5"),
        (np.eye(3), "several parts"),
        (nx.DiGraph([(0, 1), (1, 0)]), "undirected"),
        (nx.path_graph(["a", "b"]), "nodes 0 to n-1"),
        (nx.Graph([(0, 1), (2, 3)]), "several parts"),
    ],
    ids=str,
)
def test_wrong_graphs_are_refused(graph: object, message: str):
    with pytest.raises(ValueError, match=message):
        sim.Gossip(graph)


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: sim.Gossip(mix="before"), "one of 'during', 'after'; got mix='before'"),
        (lambda: sim.Gossip(replicas=0), "got replicas=0"),
        (lambda: sim.validate(sim.Gossip(nx.cycle_graph(4)), 3), "got 4 for 3 ranks"),
        (lambda: sim.validate(sim.ADPSGD(), 1), "use at least 2"),
        (lambda: sim.ADPSGD(seed=-1), "got seed=-1"),
        (lambda: sim.validate(sim.stack(Twice(), sim.Gossip()), 2), "use mix='after'"),
    ],
)
def test_wrong_knobs_are_refused(attempt: Callable[[], object], message: str):
    with pytest.raises(ValueError, match=message):
        attempt()
    sim.validate(sim.stack(Twice(), sim.Gossip(mix="after")), 2)


@dataclass(frozen=True)
class Twice(sim.Single):
    """An order that updates its parameters in two halves."""

    def program(self, me: sim.Rank) -> sim.Program:
        for instruction in super().program(me):
            if isinstance(instruction, sim.Update):
                for half in range(2):
                    yield sim.Update(sim.Chunk(instruction.params, half, 2))
            else:
                yield instruction


def test_what_ad_psgd_shows_others_is_its_model():
    text = str(sim.listing(sim.ADPSGD(), ranks=2, workload=SECOND))
    assert f"Send {MODEL} to data 0" in text and f"Send Nothing instead of {MODEL} to data 0 on gradient" in text


# ---------------------------------------------------------------- real ranks that write to themselves


def test_a_desk_gives_own_letters_while_it_waits_for_those_of_others():
    post, fetched = SimpleQueue[Arrived](), list[int]()

    def fetch() -> Arrived:
        letter = post.get()
        fetched.append(letter.source)
        return letter

    desk = Desk(fetch, mine=0)
    Timer(0.05, lambda: desk.put(Arrived(0, 1))).start()
    assert desk.take(None).version == 1 and fetched == []
    post.put(Arrived(2, 2))
    post.put(Arrived(1, 3))
    assert desk.take(1).version == 3  # the letter of rank 2 stays until somebody takes it
    assert fetched == [2, 1] and desk.take(None).version == 2
    desk.put(Arrived(0, 4))
    assert desk.take(0).version == 4 and fetched == [2, 1]


def test_who_waits_at_a_desk_learns_what_went_wrong():
    def fetch() -> Arrived:
        raise OSError("the others are gone")

    with pytest.raises(OSError, match="the others are gone"):
        Desk(fetch, mine=0).take(None)


def test_a_gradient_that_fails_on_its_stream_ends_a_real_run():
    def data(seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = torch.ones(4, 2)
        inputs[:2] = torch.nan if step == 2 else 1.0  # the passive worker's slice
        return inputs, torch.zeros(4, 1)

    problem = sim.Problem([torch.nn.Linear(2, 1)], torch.nn.functional.mse_loss, data)
    with pytest.raises(sim.DivergedError, match="rank 0 got nan in step 2"):
        lab.execute(sim.ADPSGD(), problem, ranks=2, steps=4, timeout=120)
