"""Several jobs on one cluster: what they share slows them, and nothing else does."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim

SIZE, BANDWIDTH = 4e6, 1e6  # bytes of a gradient, bytes per second of a link
FREE = sim.Model.of_times(blocks=1, forward=0.0, backward=0.0, parameters=int(SIZE) // 4)
"""Nothing to compute: a step is an all-reduce of 4 MB."""
BUSY = sim.Model.of_times(blocks=2, forward=0.5, backward=1.0, parameters=int(SIZE) // 4)


def two_racks(ranks: int, trunk: float = BANDWIDTH) -> sim.Cluster:
    """Even ranks in one rack, odd ones in another: pairs (0, 1), (2, 3), … all talk over the trunk between them."""
    graph = nx.Graph()
    graph.add_edge("even", "odd", bandwidth=trunk, latency=0.0)
    for rank in range(ranks):
        graph.add_edge(rank, "odd" if rank % 2 else "even", bandwidth=BANDWIDTH, latency=0.0)
    return sim.Cluster.from_graph(graph)


def pairs(jobs: int, model: sim.Model = FREE, **knobs: object) -> list[sim.Job]:
    return [sim.Job(sim.DataParallel(), model, (2 * at, 2 * at + 1), steps=2, **knobs) for at in range(jobs)]


STRATEGIES = [
    sim.DataParallel(),
    sim.Sharded(3),
    sim.Pipeline(microbatches=2),
    sim.ParameterServer(mode="async"),
    sim.ParameterServer(backups=1),
    sim.Gossip(),
]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_jobs_that_share_no_link_run_as_if_alone(strategy: sim.Order):
    """To the bit: on a switch that is never the bottleneck each rank has links of its own."""
    cluster = sim.Cluster.flat(ranks=9, bandwidth=BANDWIDTH, latency=1e-3)
    model = sim.Model.of_times(blocks=4, parameters=10**5, activation_bytes=1e4, batch=16)
    law = sim.noise.exponential()
    jobs = [sim.Job(strategy, model, range(at, 9, 3), steps=3, seed=at, noise=law) for at in range(3)]
    for job, run in zip(jobs, sim.simulate_jobs(jobs, cluster)):
        alone = sim.simulate(strategy, model, cluster.subset(job.ranks), steps=3, seed=job.seed, noise=law)
        assert run == alone and run.makespan > 0


@pytest.mark.parametrize("jobs", [1, 2, 3, 8])
def test_equal_jobs_on_one_bottleneck_take_as_many_times_as_long(jobs: int):
    """A19: each of n flows into one link has an nth of it."""
    for run in sim.simulate_jobs(pairs(jobs), two_racks(2 * jobs)):
        assert run.makespan == pytest.approx(2 * jobs * SIZE / BANDWIDTH, rel=1e-9)


def test_a_link_that_is_wide_enough_slows_nobody():
    for run in sim.simulate_jobs(pairs(4), two_racks(8, trunk=4 * BANDWIDTH)):
        assert run.makespan == pytest.approx(2 * SIZE / BANDWIDTH, rel=1e-9)


def test_shares_change_when_a_job_comes_and_when_it_goes():
    """A21: 8 s of bytes from time 0, as many from time 4; both have half from 4 s until the first has done at 12 s."""
    first, second = pairs(2)
    late = sim.Job(sim.DataParallel(), FREE, second.ranks, steps=2, start=4.0)
    runs = sim.simulate_jobs([first, late], two_racks(4))
    ends = [max(span.end for span in run.spans) for run in runs]
    assert ends == pytest.approx([12.0, 16.0], rel=1e-9)
    assert runs[1].makespan == pytest.approx(12.0, rel=1e-9) and min(span.start for span in runs[1].spans) == 4.0


def test_jobs_that_communicate_in_turns_do_not_disturb_each_other():
    """4 s of communication in every 8 s step: a neighbour that begins 4 s later finds the link free."""
    model = sim.Model.of_times(blocks=1, forward=2.0, backward=2.0, parameters=int(SIZE) // 4)
    first, second = (
        sim.Job(sim.DataParallel(), model, ranks, steps=5, start=start)
        for ranks, start in (((0, 1), 0.0), ((2, 3), 4.0))
    )
    for run in sim.simulate_jobs([first, second], two_racks(4)):
        assert run.makespan == pytest.approx(5 * 8.0, rel=1e-9)
    together = sim.simulate_jobs(pairs(2, model), two_racks(4))
    assert [run.makespan for run in together] == pytest.approx(2 * [2 * (4.0 + 8.0)], rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(
    strategy=st.sampled_from(STRATEGIES[:3]),
    starts=st.lists(st.floats(0.0, 20.0), min_size=2, max_size=3),
    trunk=st.floats(0.2, 3.0),
)
def test_a_neighbour_never_helps_and_never_costs_more_than_its_own_bytes(
    strategy: sim.Order, starts: list[float], trunk: float
):
    """No job is faster than alone; and the trunk is work-conserving: all are done by the time that queueing takes."""
    cluster = two_racks(2 * len(starts), trunk * BANDWIDTH)
    jobs = [sim.Job(strategy, BUSY, (2 * at, 2 * at + 1), 2, start) for at, start in enumerate(starts)]
    alone = [sim.simulate_jobs([job], cluster)[0] for job in jobs]
    together = sim.simulate_jobs(jobs, cluster)
    assert all(run.makespan >= free.makespan * (1 - 1e-9) for run, free in zip(together, alone))
    assert [run.bytes_sent for run in together] == [run.bytes_sent for run in alone]
    end = max(span.end for run in together for span in run.spans)
    assert end <= (max(starts) + sum(run.makespan for run in alone)) * (1 + 1e-9)


def test_a_subset_keeps_devices_machines_and_ways():
    whole = sim.cluster("mixed", nodes=2)
    some = whole.subset([0, 1, 8, 9])
    assert [some.device_of(rank).name for rank in range(4)] == [whole.device_of(rank).name for rank in (0, 1, 8, 9)]
    assert some.route(1, 2) == whole.route(1, 8) and some.latency(0, 1) == whole.latency(0, 1)
    assert some.wiring.machines(range(4)) == [[0, 1], [2, 3]]
    assert set(some.graph.edges) == set(whole.graph.edges)
    every = whole.subset(range(16))
    model = sim.model("gpt3-125m", batch=32)
    runs = [sim.simulate(sim.DataParallel(), model, cluster, steps=1) for cluster in (whole, every)]
    assert runs[0].spans == runs[1].spans


@pytest.mark.parametrize("ranks", [range(8, 24), range(1, 32, 2), [0, 1, 2, 3, 9, 10, 11, 12]], ids=str)
def test_a_subset_folds_as_the_whole_does(ranks: list[int]):
    """Folded equals unfolded, wherever in the cluster the ranks are."""
    some = sim.cluster("dgx-a100", nodes=4).subset(ranks)
    strategy = sim.Hybrid(data=some.ranks // 2, tensor=2)
    model = sim.model("gpt3-125m", batch=32)
    runs = [sim.simulate(strategy, model, some, steps=1, fold=fold) for fold in ("always", False)]
    assert runs[0].makespan == pytest.approx(runs[1].makespan, rel=1e-9)
    assert runs[0].bytes_sent == pytest.approx(runs[1].bytes_sent, rel=1e-9)


def test_what_is_wrong_with_jobs_is_said():
    cluster = two_racks(4)
    job = pairs(1)[0]
    with pytest.raises(ValueError, match="rank 1 is claimed by jobs 0 and 1"):
        sim.simulate_jobs([job, sim.Job(sim.DataParallel(), FREE, (1, 2))], cluster)
    with pytest.raises(ValueError, match="from 0 to 3"):
        sim.simulate_jobs([sim.Job(sim.DataParallel(), FREE, (1, 4))], cluster)
    with pytest.raises(ValueError, match="from 0 to 3, each once"):
        sim.simulate_jobs([sim.Job(sim.DataParallel(), FREE, (1, 1))], cluster)
    with pytest.raises(ValueError, match="detail is one of"):
        sim.simulate_jobs([job], cluster, detail="packets")
    with pytest.raises(ValueError, match="start is a finite number, at least 0"):
        sim.Job(sim.DataParallel(), FREE, (0, 1), start=-1.0)
    with pytest.raises(ValueError, match="a list of Jobs"):
        sim.simulate_jobs([sim.DataParallel()], cluster)  # type: ignore[list-item]
    for none in (None, job, []):
        with pytest.raises(ValueError, match="jobs is a list of Jobs"):
            sim.simulate_jobs(none, cluster)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="jobs is a list of Jobs") as error:
        sim.simulate_jobs([sim.model("gpt3-175b")], cluster)  # type: ignore[list-item]
    assert len(str(error.value)) < 300  # it does not print all blocks of a model
    for ranks, says in ((2, "the ranks of the cluster.*got ranks=2"), ((0, [1]), r"a whole number.*got ranks=\[1\]")):
        with pytest.raises(ValueError, match=says):
            sim.Job(sim.DataParallel(), FREE, ranks)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="numbered 0 to 1; got 2"):  # a job's own ranks
        sim.simulate_jobs([sim.Job(sim.DataParallel(), FREE, (2, 3), noise=sim.noise.slow({2: 2.0}))], cluster)
    for none in (5, None, "01"):
        with pytest.raises(ValueError, match="ranks is an iterable of ranks"):
            cluster.subset(none)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a workload is a Model"):
        sim.simulate_jobs([sim.Job(sim.DataParallel(), "gpt3", (0, 1))], cluster)  # type: ignore[arg-type]


def test_a_job_that_cannot_end_is_named_and_the_others_do_not_hide_it():
    class Stuck(sim.Order):
        axis = "pair"
        static = False  # so that it is not found before it runs

        def program(self, me):
            for _ in me.steps():
                message = yield sim.Recv(sim.Params(me.blocks), source=1 - me.rank)
                assert message

    job = sim.Job(Stuck(), FREE, (2, 3))
    with pytest.raises(sim.ProgramError, match="deadlock"):
        sim.simulate_jobs([pairs(1)[0], job], two_racks(4))


def test_a_problem_is_timed_as_its_model():
    problem = sim.problem("digits-mlp", batch=8)
    run = sim.simulate_jobs([sim.Job(sim.DataParallel(), problem, (0, 2), steps=2)], two_racks(4))[0]
    alone = sim.simulate(sim.DataParallel(), problem, two_racks(4).subset((0, 2)), steps=2, learn=False)
    assert run == alone and not run.parameters and run.workload == problem.name
