"""Crashes and checkpoints as they happen: exact timelines, and laws that every timeline obeys."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator.failures import (
    Failures,
    elastic_step_time,
    goodput,
    published,
    simulate_training,
    system_mtbf,
    young,
)
from simulator.failures.history import MOMENTS, SPELLS

HOUR = 3600.0

# ---------------------------------------------------------------- what happens, exactly


def crashes_once(at, nodes=1, **knobs):
    """A law and a seed with one crash at a given second of risk, and none for long after."""
    for seed in range(1000):
        law, random = Failures(mtbf=1.0, **knobs), Random(f"failures {seed}")
        first, second = law.draw(random), law.draw(random)
        if second > 20 * first:
            return dict(failures=replace(law, mtbf=at * nodes / first), nodes=nodes, seed=seed)
    raise AssertionError("no such seed")


def log(training):
    return [(e.kind, round(e.start, 6), round(e.end, 6), e.nodes) for e in training.timeline]


PLAN = dict(checkpoint=5, interval=100, detection=7, restart=20)


def test_a_crash_while_working():
    training = simulate_training(10.0, hours=300 / HOUR, **crashes_once(130, **PLAN))
    assert log(training) == [
        ("work", 0, 100, 1),
        ("checkpoint", 100, 105, 1),
        ("lost", 105, 130, 1),
        ("crash", 130, 130, 0),
        ("detect", 130, 137, 0),
        ("restart", 137, 157, 1),
        ("work", 157, 257, 1),
        ("checkpoint", 257, 262, 1),
        ("work", 262, 300, 1),
    ]
    assert (training.useful_steps, training.crashes) == (23, 1)
    assert (training.goodput, training.lost_work, training.mtbf) == pytest.approx((238 / 300, 25, 300))
    assert training.frame()["end"].iloc[-1] == 300 and sum(training.frame()["steps"]) == pytest.approx(26.3)


def test_a_crash_while_writing_loses_what_was_being_written():
    training = simulate_training(10.0, hours=150 / HOUR, **crashes_once(103, **PLAN))
    assert log(training)[:4] == [
        ("lost", 0, 100, 1),
        ("checkpoint", 100, 103, 1),
        ("crash", 103, 103, 0),
        ("detect", 103, 110, 0),
    ]
    assert training.useful_steps == 2 and training.lost_work == 100


def test_a_spare_takes_the_place_and_the_repaired_node_is_the_next_spare():
    plan = crashes_once(130, nodes=4, spares=1, repair=1e9, **PLAN)
    training = simulate_training(10.0, hours=300 / HOUR, **plan)
    assert ("crash", 130, 130, 3) in log(training) and ("restart", 137, 157, 4) in log(training)
    assert training.count("shrink") == training.count("wait") == 0


def test_without_a_spare_it_waits_for_the_repair():
    training = simulate_training(10.0, hours=300 / HOUR, **crashes_once(130, nodes=4, repair=50, **PLAN))
    assert log(training)[4:7] == [("detect", 130, 137, 3), ("wait", 137, 180, 4), ("restart", 180, 200, 4)]


def test_without_repair_it_waits_for_ever():
    training = simulate_training(10.0, hours=1, **crashes_once(130, nodes=4, repair=math.inf, **PLAN))
    assert log(training)[-1] == ("wait", 137, 3600, 3) and training.useful_steps == 10


@pytest.mark.parametrize("elastic, steps_of_three", [("accumulate", 8), ("rescale", 10)])
def test_it_shrinks_and_grows_at_the_next_checkpoint_f8(elastic, steps_of_three):
    """With 3 of 4 nodes, a step of the whole batch takes 4/3 as long: 8 of them are the interval, in whole steps."""
    plan = crashes_once(130, nodes=4, repair=100, elastic=elastic, **PLAN)
    training = simulate_training(10.0, hours=500 / HOUR, **plan)
    small = steps_of_three * (40 / 3 if elastic == "accumulate" else 10)
    saved = round(157 + small + 5, 6)
    assert log(training)[4:11] == [
        ("detect", 130, 137, 3),
        ("shrink", 137, 137, 3),
        ("restart", 137, 157, 3),
        ("work", 157, saved - 5, 3),
        ("checkpoint", pytest.approx(saved - 5), saved, 3),
        ("grow", saved, saved, 4),
        ("restart", saved, saved + 20, 4),
    ]
    kept = {event.nodes: event.steps for event in training.timeline if event.kind == "work" and event.start < saved}
    assert kept == pytest.approx({4: 10, 3: steps_of_three})
    whole = sum(e.steps * (e.nodes / 4 if elastic == "rescale" else 1) for e in training.timeline if e.kind == "work")
    assert training.goodput == pytest.approx(whole * 10 / 500)


def test_crashes_common_to_all_take_no_node():
    law = Failures(mtbf=math.inf, common_mtbf=5000, repair=math.inf, checkpoint=5, interval=100, restart=20)
    training = simulate_training(10.0, nodes=4, hours=100, failures=law)
    assert training.crashes > 40 and {event.nodes for event in training.timeline} == {4}


def test_steps_come_from_a_run_or_a_function():
    model = sim.Model.of_times(blocks=2, forward=1.0, backward=2.0)
    run = sim.simulate(sim.Single(), model, sim.cluster("ideal", ranks=1), steps=3)
    plan = crashes_once(130, nodes=4, repair=100, elastic="accumulate", **PLAN)
    ours = simulate_training(run, hours=1, **plan)
    assert ours == simulate_training(6.0, hours=1, **plan) and ours.step_time == 6.0
    asked = []

    def step(nodes):
        asked.append(nodes)
        return 6.0 if nodes == 4 else 9.0

    slower = simulate_training(step, hours=1, **plan)
    assert sorted(asked) == [3, 4] and slower.step_time == 6.0 and slower.goodput < ours.goodput


# ---------------------------------------------------------------- laws of every timeline


anything = st.builds(
    Failures,
    mtbf=st.sampled_from([1e4, 1e5, 1e6, math.inf]),
    devices=st.integers(1, 8),
    common_mtbf=st.sampled_from([1e4, math.inf]),
    shape=st.sampled_from([0.6, 1.0, 2.0]),
    detection=st.sampled_from([0.0, 300.0]),
    restart=st.sampled_from([0.0, 200.0]),
    checkpoint=st.sampled_from([0.0, 30.0]),
    interval=st.sampled_from([500.0, 2000.0]),
    spares=st.integers(0, 2),
    repair=st.sampled_from([0.0, 5000.0, 1e5, math.inf]),
    elastic=st.sampled_from(["wait", "accumulate", "rescale"]),
    least=st.integers(1, 3),
)


@settings(max_examples=60, deadline=None)
@given(law=anything, nodes=st.integers(3, 9), seed=st.integers(0, 10_000))
def test_time_is_filled_and_the_same_seed_gives_the_same(law, nodes, seed):
    training = simulate_training(7.0, nodes=nodes, hours=40, failures=law, seed=seed)
    timeline = training.timeline
    assert timeline[0].start == 0 and timeline[-1].end == training.seconds
    assert all(before.end == after.start for before, after in pairwise(timeline))
    assert all((e.end == e.start) == (e.kind in MOMENTS) for e in timeline)
    assert sum(map(training.spent, SPELLS)) == pytest.approx(training.seconds)
    assert all(0 <= e.nodes <= nodes and (e.nodes >= law.least or e.kind not in ("work", "restart")) for e in timeline)
    assert 0 <= training.goodput <= 1 + 1e-12
    assert training == simulate_training(7.0, nodes=nodes, hours=40, failures=law, seed=seed)


@settings(max_examples=40, deadline=None)
@given(law=anything, nodes=st.integers(3, 9), seed=st.integers(0, 10_000))
def test_only_what_a_checkpoint_holds_survives_a_crash(law, nodes, seed):
    law = replace(law, checkpoint=30.0)
    timeline = simulate_training(7.0, nodes=nodes, hours=40, failures=law, seed=seed).timeline
    for place, event in enumerate(timeline[:-2]):
        if event.kind == "work":  # kept, so what follows is a whole checkpoint
            following = timeline[place + 1]
            assert following.kind == "checkpoint" and following.end - following.start == pytest.approx(30)
            assert event.steps == pytest.approx(round(event.steps), abs=1e-6)
        if event.kind == "lost":
            assert "crash" in [after.kind for after in timeline[place + 1 : place + 3]]


@settings(max_examples=60, deadline=None)
@given(law=anything, nodes=st.integers(3, 9), seed=st.integers(0, 10_000))
def test_only_crashes_and_the_end_cut_anything_short(law, nodes, seed):
    """So a crash while restarting, or while growing, begins another outage; and none comes before one is noticed."""
    law = replace(law, restart=400.0, detection=300.0)
    timeline = simulate_training(7.0, nodes=nodes, hours=40, failures=law, seed=seed).timeline
    planned = {"checkpoint": law.checkpoint, "restart": law.restart, "detect": law.detection}
    for event, following in pairwise(timeline):
        if event.kind in planned and event.end - event.start < planned[event.kind] - 1e-6:
            assert following.kind == "crash" and event.kind != "detect"
        if following.kind == "crash":
            assert event.kind in ("lost", "checkpoint", "restart")


def test_crashes_while_growing_begin_another_outage():
    law = Failures(mtbf=2e4, interval=500, restart=600, repair=3000, elastic="accumulate")
    timeline = simulate_training(10.0, nodes=8, hours=400, failures=law).timeline
    kinds = [event.kind for event in timeline]
    broken = [place for place in range(len(kinds)) if kinds[place : place + 3] == ["grow", "restart", "crash"]]
    assert len(broken) > 10 and all(timeline[place + 1].end - timeline[place].end < 600 for place in broken)


def test_without_crashes_only_checkpoints_cost():
    law = Failures(mtbf=math.inf, checkpoint=10, interval=90)
    assert law.goodput(nodes=8) == pytest.approx(0.9)
    assert simulate_training(1.0, nodes=8, hours=10, failures=law).goodput == pytest.approx(0.9)
    alone = simulate_training(1.0, nodes=8, hours=10, failures=Failures(mtbf=math.inf, checkpoint=10))
    assert alone.goodput == 1 and alone.useful_steps == 36_000


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: goodput(mtbf=0, checkpoint=1, restart=1), "mtbf is a finite number, above 0; got mtbf=0"),
        (lambda: goodput(mtbf=9, checkpoint=1, restart=-1), "restart is a finite number, at least 0"),
        (lambda: goodput(mtbf=9, checkpoint=1, restart=1, interval=0), "interval is a finite number, above 0"),
        (lambda: young(1, -1), "checkpoint is a finite number, at least 0"),
        (lambda: system_mtbf(1.0, 0), "n is a whole number, at least 1"),
        (lambda: elastic_step_time(1.0, 4, 5), "left=5 of nodes=4"),
        (lambda: published("gpt-5"), "published systems are llama3-405b, rsc-1, .*got system='gpt-5'"),
        (lambda: Failures(mtbf=0), "Failures: mtbf is a finite number, above 0"),
        (lambda: Failures(mtbf=math.nan), "Failures: mtbf is a finite number"),
        (lambda: Failures(mtbf=1, repair=-1), "Failures: repair is a finite number, at least 0"),
        (lambda: Failures(mtbf=1, interval=0), "Failures: interval is a finite number, above 0"),
        (lambda: Failures(mtbf=1, spares=0.5), "Failures: spares is a whole number"),
        (lambda: Failures(mtbf=1, elastic="yes"), "'wait', 'accumulate', 'rescale'; got elastic='yes'"),
        (lambda: Failures(mtbf=1, shape=2).goodput(4), "closed form for shape=1; got shape=2: use simulate_training"),
        (lambda: simulate_training(0, nodes=1, hours=1, failures=Failures(1)), "step_time is a finite number, above 0"),
        (lambda: simulate_training(1, nodes=1, hours=0, failures=Failures(1)), "hours is a finite number, above 0"),
        (lambda: simulate_training(1, nodes=1, hours=1, failures=Failures(1, least=2)), "nodes is a whole number, at"),
        (lambda: simulate_training(lambda n: -n, nodes=1, hours=1, failures=Failures(1)), r"step_time\(1\) is a fin"),
        (lambda: simulate_training(1, nodes=1, hours=1, failures=0.1), "failures is .*got failures=0.1"),
        (lambda: simulate_training(1.0, nodes=1, hours=0.01, failures=Failures(60)).spent("sleep"), "time is spent on"),
        (lambda: simulate_training(1.0, nodes=1, hours=0.01, failures=Failures(60)).count("nap"), "a timeline has"),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
