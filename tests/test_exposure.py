"""Time that is not computation: what communication costs beyond what computation hides, and waiting for others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cases import ALL, Case
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import noise
from simulator.run import Run, Spans

FREE = sim.cluster("ideal", ranks=4)


def slow(ranks: int = 4) -> sim.Cluster:
    return sim.Cluster.flat(ranks, bandwidth=2e6, latency=1e-3)


def model(blocks: int = 8, batch: int = 8, **more) -> sim.Model:
    return sim.Model.of_times(blocks=blocks, batch=batch, **{"parameters": 10**6, "activation_bytes": 1e6, **more})


@given(p=st.integers(2, 4), turns=st.integers(1, 4), schedule=st.sampled_from(["gpipe", "1f1b", "interleaved"]))
@settings(max_examples=20, deadline=None)
def test_a_pipeline_on_a_free_network_waits_for_its_bubble_and_exposes_nothing(p, turns, schedule):
    """B1, B4: (p-1)/(m+p-1) of the time, with v chunks (p-1)/(vm+p-1)."""
    m, v = p * turns, 2 if schedule == "interleaved" else 1
    order = sim.Pipeline(schedule, m, chunks=2) if v == 2 else sim.Pipeline(schedule, m)
    run = sim.simulate(order, model(2 * p, m), sim.cluster("ideal", ranks=p), steps=1)
    assert run.exposed_communication == pytest.approx([0.0] * p, abs=1e-9)
    assert run.waiting == pytest.approx([run.makespan * (p - 1) / (v * m + p - 1)] * p)
    assert run.bubble == pytest.approx((p - 1) / (v * m + p - 1))


@pytest.mark.parametrize("parameters", [10**5, 4 * 10**6, 40 * 10**6])
def test_data_parallelism_exposes_what_computation_does_not_hide_and_waits_for_nobody(parameters):
    """A1, E16: gradients of a block are averaged while earlier blocks are computed; the rest is exposed."""
    n, blocks = 4, 4
    run = sim.simulate(sim.DataParallel(bucket_bytes=0), model(blocks, parameters=parameters), slow(n), steps=1)
    each = 2 * (n - 1) * (1e-3 + 4 * parameters / blocks / n / 2e6)
    wanted = max(each, blocks * each - (blocks - 1) * 2.0)
    assert run.exposed_communication == pytest.approx([wanted] * n)
    assert run.waiting == pytest.approx([0.0] * n, abs=1e-9)


def test_two_stages_wait_for_each_other_and_for_their_messages():
    """One microbatch, by hand: F 1 s, a message of 0.5 s and 1 ms, F and B 3 s, a message back, B 2 s."""
    run = sim.simulate(sim.Pipeline("gpipe", 1), model(2, 1), slow(2), steps=1)
    hop = 1e6 / 2e6 + 1e-3
    assert run.makespan == pytest.approx(6 + 2 * hop)
    assert run.waiting == pytest.approx([3.0 + 1e-3, 1.0 + 2.0 + 1e-3])  # the wire's latency is nobody's sending
    assert run.exposed_communication == pytest.approx([2 * hop - 1e-3] * 2)


TIMED = [(case, max(case.ranks)) for case in ALL if "timed" not in case.outside]


@pytest.mark.parametrize("case, ranks", TIMED, ids=str)
def test_a_makespan_is_computing_exposed_communication_and_waiting(case: Case, ranks: int):
    """Of every worker of every strategy, also where ranks are slow by chance; nothing is negative."""
    workload = case.shared(model(4 * ranks, 60, parameters=4800 * ranks, activation_bytes=64))
    thin = sim.Cluster.flat(ranks, bandwidth=1e4, latency=1e-3)
    run = sim.simulate(case.strategy, workload, thin, steps=2, noise=noise.gamma(shape=4), seed=1)
    for worker, exposed, waiting in zip(run.workers, run.exposed_communication, run.waiting, strict=True):
        assert exposed >= -1e-9 and waiting >= -1e-9
        assert run.busy[worker] + exposed + waiting == pytest.approx(run.makespan)


LATE = ("clip-pipeline", "context")
"""Rows whose ranks come to a collective at different times: those that are there first wait in it."""


FREELY = [row for row in TIMED if row[0].grows and row[0].rule is None and row[0].id not in LATE]


@pytest.mark.parametrize("case, ranks", FREELY, ids=str)
def test_on_a_free_network_nothing_is_exposed_whatever_computation_costs(case: Case, ranks: int):
    """Adding up, copying and letting go are computation too: their time is neither exposed nor a bubble."""
    workload = replace(case.shared(model(4 * ranks, 60)), reduce=sim.Seconds(5.0), update=sim.Seconds(1.0))
    run = sim.simulate(case.strategy, workload, sim.cluster("ideal", ranks=ranks), steps=1)
    assert run.exposed_communication == pytest.approx([0.0] * len(run.workers), abs=1e-9)


def test_letting_go_is_computation():
    """Stage 3 lets each of 4 buckets go before its first step, and twice a step; nobody waits for anything."""
    workload = replace(model(4), reduce=sim.Seconds(5.0))
    run = sim.simulate(sim.Sharded(3), workload, FREE, steps=1)
    freed = [span for span in run.spans if span.instruction.startswith("Free Params") and span.rank == 0]
    assert len(freed) == 4 + 2 * 4 and all(span.end - span.start == 5.0 for span in freed)
    assert run.bubble == pytest.approx(0.0, abs=1e-12) and run.busy[0] >= 12 * 5.0


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved"])
def test_ranks_that_are_simulated_once_wait_and_expose_as_all_do(schedule):
    chunks = 2 if schedule == "interleaved" else None
    mix = sim.stack(sim.Pipeline(schedule, 8, chunks=chunks, stages=2), sim.DataParallel())
    runs = [sim.simulate(mix, model(8, 32), slow(8), steps=2, fold=fold) for fold in ("always", False)]
    assert len(set(runs[0].alike)) < 8
    assert runs[0].exposed_communication == pytest.approx(runs[1].exposed_communication, rel=1e-9)
    assert runs[0].waiting == pytest.approx(runs[1].waiting, rel=1e-9)


def test_a_message_counts_from_when_it_was_sent_whatever_else_was_sent_before():
    """The same value in every step, from two ranks; and a message whose sending nobody saw counts as a whole."""
    spans = Spans()
    for step in range(2):
        at = 10.0 * step
        spans.add(1, "to 0", "Send Params(0) to world 0", step, at + 1.0, at + 2.0, 8.0)
        spans.add(2, "to 0", "Send Grads(0) to world 0", step, at + 3.0, at + 4.0, 8.0)
        spans.add(0, "compute", "Recv Params(0) from any", step, at + 0.0, at + 2.5)
        spans.add(0, "compute", "Recv Grads(0) from world 2", step, at + 2.5, at + 4.5)
        spans.add(0, "compute", "Recv a[0] from world 3", step, at + 4.5, at + 5.5)
    common = dict(clock="wall", strategy="S()", workload="w", cluster="c", seed=0, batch=1, steps=2)
    run = Run(ranks=4, workers=(0,), spans=spans, **common)
    assert run.exposed_communication == [2 * (1.5 + 1.5 + 1.0)] and run.waiting == [15.5 - 8.0]
    assert replace(run, workers=(1, 3)).exposed_communication == [2.0, 0.0]
