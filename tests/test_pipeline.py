"""Pipelines: how long a schedule takes and how much it holds, for any number of stages and microbatches."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import metrics, theory

some = settings(max_examples=40, deadline=None)
sizes = dict(stages=st.integers(1, 6), microbatches=st.integers(1, 10))
seconds = st.floats(0.01, 10.0)


def run_of(
    schedule: str, stages: int, microbatches: int, forward: float = 1.0, backward: float = 2.0, **knobs: int
) -> sim.Run:
    """A pipeline on a free network, one block per stage unless told otherwise."""
    model = sim.Model.of_times(**{"blocks": stages, "forward": forward, "backward": backward, **knobs})
    cluster = sim.cluster("ideal", ranks=stages)
    return sim.simulate(sim.Pipeline(schedule, microbatches=microbatches), model, cluster, steps=1)


# ---------------------------------------------------------------- B1, B2, B3


def test_theory_of_pipelines():
    assert theory.pipeline(4, 8, 1.0, 2.0) == 33.0
    assert theory.bubble_overhead(4, 8) == 0.375
    assert theory.bubble_fraction(4, 8) == pytest.approx(0.2727, abs=5e-5)
    assert [theory.in_flight("gpipe", stage, 4, 8) for stage in range(4)] == [8, 8, 8, 8]
    assert [theory.in_flight("1f1b", stage, 4, 8) for stage in range(4)] == [4, 3, 2, 1]


@some
@given(**sizes, forward=seconds, backward=seconds)
def test_gpipe_and_1f1b_take_equally_long(stages: int, microbatches: int, forward: float, backward: float):
    expected = theory.pipeline(stages, microbatches, forward, backward)
    for schedule in ("gpipe", "1f1b"):
        assert run_of(schedule, stages, microbatches, forward, backward).makespan == pytest.approx(expected, rel=1e-9)


@some
@given(**sizes, forward=seconds, backward=seconds)
def test_naive_stages_take_turns(stages: int, microbatches: int, forward: float, backward: float):
    run = run_of("naive", stages, microbatches, forward, backward)
    assert run.makespan == pytest.approx(theory.naive_pipeline(stages, microbatches, forward, backward), rel=1e-9)


@some
@given(**sizes)
def test_both_bubbles(stages: int, microbatches: int):
    run = run_of("1f1b", stages, microbatches)
    assert run.bubble == pytest.approx(theory.bubble_fraction(stages, microbatches), abs=1e-12)
    assert metrics.bubble_overhead(run) == pytest.approx(theory.bubble_overhead(stages, microbatches), abs=1e-12)


@some
@given(**sizes, schedule=st.sampled_from(["naive", "gpipe", "1f1b"]))
def test_microbatches_in_flight(stages: int, microbatches: int, schedule: str):
    run = run_of(schedule, stages, microbatches)
    assert run.in_flight == [theory.in_flight(schedule, stage, stages, microbatches) for stage in range(stages)]


# ---------------------------------------------------------------- order, bytes, uneven stages


@some
@given(**sizes, schedule=st.sampled_from(["naive", "gpipe", "1f1b"]), more=st.integers(0, 5))
def test_every_block_sees_every_microbatch_once(stages: int, microbatches: int, schedule: str, more: int):
    run = run_of(schedule, stages, microbatches, blocks=stages + more)
    for kind in ("Forward", "Backward"):
        seen = [span.instruction for span in run.spans if span.instruction.startswith(f"{kind} ")]
        every = [f"{kind} {block} mb{part}" for block in range(stages + more) for part in range(microbatches)]
        assert sorted(seen) == sorted(every)


@pytest.mark.parametrize("schedule", ["naive", "gpipe", "1f1b"])
def test_what_a_stage_sends(schedule: str):
    model = sim.Model.of_times(blocks=5, activation_bytes=100.0, batch=14)
    run = sim.simulate(sim.Pipeline(schedule, microbatches=4), model, sim.cluster("ideal", ranks=3), steps=2)
    assert list(run.bytes_sent) == [2 * size for size in theory.pipeline_bytes([1400.0, 1400.0])]


def test_steps_follow_each_other_without_overlap():
    model = sim.Model.of_times(blocks=3)
    run = sim.simulate(sim.Pipeline("1f1b", microbatches=5), model, sim.cluster("ideal", ranks=3), steps=4)
    assert run.step_times == pytest.approx([theory.pipeline(3, 5, 1.0, 2.0)] * 4)


def test_the_slowest_stage_sets_the_pace():
    """With many microbatches a stage of three times the work is all that counts (B14)."""
    blocks = tuple(sim.Block(0, sim.Seconds(work / 3), sim.Seconds(2 * work / 3)) for work in (1, 1, 3, 1))
    cluster = sim.cluster("ideal", ranks=4)
    short, long = (
        sim.simulate(sim.Pipeline("1f1b", microbatches=m), sim.Model("uneven", blocks), cluster, steps=1).makespan
        for m in (50, 150)
    )
    assert (long - short) / 100 == pytest.approx(3.0)


def test_messages_between_stages_take_their_time():
    model = sim.Model.of_times(blocks=2, forward=1.0, backward=2.0, activation_bytes=10.0, batch=1)
    cluster = sim.Cluster.flat(ranks=2, bandwidth=100.0, latency=0.5)
    run = sim.simulate(sim.Pipeline("naive", microbatches=1), model, cluster, steps=1)
    assert run.makespan == pytest.approx(2 * 3.0 + 2 * (0.5 + 10.0 / 100.0))


# ---------------------------------------------------------------- replicas of a pipeline


@settings(max_examples=15, deadline=None)
@given(stages=st.integers(1, 4), replicas=st.integers(1, 3), microbatches=st.integers(1, 5))
def test_replicas_do_not_change_a_pipeline(stages: int, replicas: int, microbatches: int):
    strategy = sim.stack(sim.Pipeline("1f1b", microbatches, stages=stages), sim.DataParallel(replicas=replicas))
    model = sim.Model.of_times(blocks=stages, parameters=100)
    run = sim.simulate(strategy, model, sim.cluster("ideal", ranks=stages * replicas), steps=1)
    assert run.makespan == pytest.approx(theory.pipeline(stages, microbatches, 1.0, 2.0))
    held = [theory.in_flight("1f1b", stage, stages, microbatches) for stage in range(stages)]
    assert run.in_flight == [count for count in held for _ in range(replicas)]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: sim.Pipeline("zigzag"), "'naive', 'gpipe', '1f1b', .*'zbv'; got schedule='zigzag'"),
        (lambda: sim.Pipeline(microbatches=0), "at least 1; got microbatches=0"),
        (lambda: sim.Pipeline(microbatches=2.5), "whole number"),
        (lambda: sim.Pipeline(stages=0), "at least 1.*got stages=0"),
        (lambda: run_of("1f1b", 3, 2, blocks=2), "every stage needs a block; got 2 block.* for 3 stages"),
        (lambda: sim.validate(sim.Pipeline(stages=2), ranks=3), "got ranks=3"),
        (
            lambda: sim.simulate(
                sim.Pipeline(microbatches=9),
                sim.problem("digits-mlp", batch=8),
                sim.cluster("ideal", ranks=2),
            ),
            "a sample; got batch=8 for 9 parts: give batch=9 or more",
        ),
    ],
)
def test_what_cannot_be_is_refused(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()
