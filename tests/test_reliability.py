"""Failures in closed form, long trainings that agree with them, published statistics re-enacted."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from random import Random
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.failures import (
    Failures,
    best_interval,
    daly,
    elastic_step_time,
    first_order_goodput,
    goodput,
    mtbf_of_rate,
    published,
    rescaled_rate,
    simulate_training,
    speculative_tail,
    speculative_time,
    survival,
    system_mtbf,
    young,
)
from simulator.failures.published import facts
from simulator.failures.reliability import pareto_mean

HOUR, DAY = 3600.0, 86400.0
LLAMA = published("llama3-405b")
LLAMA_MTBF = LLAMA["time"] * DAY / LLAMA["unexpected interruptions"]
KOKOLIS = published("rsc-1")


# ---------------------------------------------------------------- closed forms


@pytest.mark.parametrize(
    "checkpoint, first, higher, exact", [(60, 1156, 1116.3, 1116.3), (300, 2584.8, 2388.6, 2388.8)]
)
def test_intervals_at_llamas_mtbf_f3(checkpoint, first, higher, exact):
    assert young(LLAMA_MTBF, checkpoint) == pytest.approx(first, abs=0.1)
    assert daly(LLAMA_MTBF, checkpoint) == pytest.approx(higher, abs=0.05)
    assert best_interval(LLAMA_MTBF, checkpoint) == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize("checkpoint, restart, expected, first", [(60, 300, 0.8758, 0.8692), (10, 120, 0.9479, None)])
def test_goodput_at_llamas_mtbf_f4(checkpoint, restart, expected, first):
    assert goodput(mtbf=LLAMA_MTBF, checkpoint=checkpoint, restart=restart) == pytest.approx(expected, abs=5e-5)
    if first is not None:
        assert first_order_goodput(LLAMA_MTBF, checkpoint, restart) == pytest.approx(first, abs=5e-5)


def test_the_optimum_is_flat_f5():
    best = goodput(LLAMA_MTBF, 60, 300)
    youngs = goodput(LLAMA_MTBF, 60, 300, young(LLAMA_MTBF, 60))
    assert (round(best, 5), round(youngs, 5)) == (0.87583, 0.87578)


@given(mtbf=st.floats(1, 1e7), share=st.floats(1e-9, 1e3), off=st.floats(0.01, 2), restart=st.floats(0, 1e5))
def test_no_interval_beats_the_best_f3(mtbf, share, off, restart):
    checkpoint = share * mtbf
    best = best_interval(mtbf, checkpoint)
    assert 0 < best <= mtbf
    assert best / mtbf == pytest.approx(-math.expm1(-(best + checkpoint) / mtbf), rel=1e-6)
    ours = goodput(mtbf, checkpoint, restart)
    for factor in (1 / (1 + off), 1 + off):
        assert goodput(mtbf, checkpoint, restart, factor * best) <= ours * (1 + 1e-9)


@given(mtbf=st.floats(1, 1e7), share=st.floats(1e-9, 0.03))
def test_daly_is_nearly_exact_and_young_too_long_f3(mtbf, share):
    best = best_interval(mtbf, share * mtbf)
    assert daly(mtbf, share * mtbf) == pytest.approx(best, rel=1e-3)
    assert young(mtbf, share * mtbf) > best


def test_hopeless_and_free_checkpoints_f4():
    assert daly(100, 200) == 100
    assert goodput(mtbf=1, checkpoint=1, restart=0, interval=1e6) == 0.0
    assert goodput(mtbf=100, checkpoint=0, restart=10) == pytest.approx(math.exp(-0.1))
    assert goodput(mtbf=100, checkpoint=0, restart=10, interval=1e-6) == pytest.approx(math.exp(-0.1))
    assert goodput(mtbf=1e15, checkpoint=10, restart=10, interval=90) == pytest.approx(0.9)


def test_detection_adds_to_what_a_crash_costs_f4():
    """Rarely a crash follows a crash: then detection and restart are one delay."""
    apart = goodput(1e6, 10, 100, detection=50)
    assert apart == pytest.approx(goodput(1e6, 10, 150), rel=1e-7)
    assert goodput(200, 10, 100, detection=50) > goodput(200, 10, 150)


def test_components_fail_together_f7():
    assert system_mtbf(5.0, 10) == 0.5
    assert survival(n=10, time=0.5, mtbf=5.0) == pytest.approx(math.exp(-1))
    draw = Random(7).expovariate
    lived = fmean(min(draw(1 / 5.0) for _ in range(10)) > 0.5 for _ in range(20_000))
    assert lived == pytest.approx(math.exp(-1), abs=4 * 0.5 / 20_000**0.5)


@given(nodes=st.integers(2, 1000), step=st.floats(0.01, 100), rate=st.floats(1e-5, 10))
def test_elastic_steps_and_rates_f8(nodes, step, rate):
    throughput = step / elastic_step_time(step, nodes, nodes - 1)
    assert throughput == pytest.approx((nodes - 1) / nodes, rel=1e-12)
    assert rescaled_rate(rate, nodes, nodes - 1) == pytest.approx(rate * throughput, rel=1e-12)


def test_second_copies_of_exponential_tasks_f9():
    draw = Random(3).expovariate
    mean = fmean(min(draw(1.0), draw(1.0)) for _ in range(40_000))
    assert mean == pytest.approx(speculative_time(1.0), abs=4 * 0.5 / 200)


def test_second_copies_of_heavy_tails_f9():
    draw = Random(4).paretovariate
    times = [min(draw(0.8), draw(0.8)) for _ in range(40_000)]
    for late in (1.5, 3.0, 10.0):
        expected = late ** -speculative_tail(0.8)
        assert fmean(time > late for time in times) == pytest.approx(expected, abs=4 * (expected / 40_000) ** 0.5)
    assert pareto_mean(0.8) == math.inf and pareto_mean(speculative_tail(0.8)) == pytest.approx(8 / 3)


# ---------------------------------------------------------------- long trainings agree with closed forms


@pytest.mark.parametrize(
    "checkpoint, restart, detection, hours",
    [(60, 300, 0, 20_000), (10, 120, 0, 10_000), (300, 300, 0, 25_000), (60, 300, 600, 20_000)],
)
def test_simulated_goodput_is_the_closed_form_f4(checkpoint, restart, detection, hours):
    """Thousands of crashes; half a per cent is three standard errors or more."""
    law = Failures(mtbf=LLAMA_MTBF * 64, checkpoint=checkpoint, restart=restart, detection=detection)
    training = simulate_training(1.0, nodes=64, hours=hours, failures=law, seed=5)
    assert training.crashes > 3_000
    assert training.goodput == pytest.approx(law.goodput(64), rel=5e-3)
    assert law.goodput(64) == goodput(LLAMA_MTBF, checkpoint, restart, detection=detection)


def test_long_outages_are_the_closed_form_f4():
    """Crashes strike restarts as often as work, and nothing while nobody has noticed the one before."""
    law = Failures(mtbf=1000, checkpoint=10, interval=100, restart=500, detection=1000)
    training = simulate_training(1.0, nodes=1, hours=5_000, failures=law, seed=1)
    assert training.goodput == pytest.approx(law.goodput(1), rel=0.04)
    assert training.mtbf == pytest.approx(1000 + 1000, rel=0.04)


def test_the_best_interval_is_best_in_simulation_too_f3():
    """Three times the best interval, and a third of it, lose what the formula says."""
    best = best_interval(LLAMA_MTBF, 60)
    for interval in (best / 3, 3 * best):
        law = Failures(mtbf=LLAMA_MTBF, checkpoint=60, restart=300, interval=interval)
        training = simulate_training(1.0, nodes=1, hours=15_000, failures=law, seed=2)
        assert training.goodput == pytest.approx(law.goodput(1), rel=5e-3)
        assert training.goodput < 0.98 * goodput(LLAMA_MTBF, 60, 300)


def test_waiting_for_repairs_costs_each_of_them():
    """Without spares, checkpoints' cost and restarts: M/(M + r), for nothing crashes while it waits."""
    law = Failures(mtbf=8e5, repair=2e4, interval=500)
    training = simulate_training(500.0, nodes=8, hours=20_000, failures=law, seed=1)
    assert training.goodput == pytest.approx(1e5 / (1e5 + 2e4), rel=0.02)
    assert training.spent("wait") == pytest.approx(2e4 * training.crashes, rel=0.01)


@pytest.mark.parametrize("elastic", ["accumulate", "rescale"])
def test_elastic_throughput_goes_with_the_nodes_that_are_up_f8(elastic):
    """Each node is up for m and away for r on average, whatever the others do: goodput m/(m + r)."""
    law = Failures(mtbf=1e5, repair=2e4, interval=100, elastic=elastic)
    training = simulate_training(100.0, nodes=8, hours=3_000, failures=law, seed=1)
    assert training.goodput == pytest.approx(1e5 / 1.2e5, rel=0.02)
    assert training.count("shrink") > 500 and training.count("wait") == 0
    assert training.goodput > 2 * (1e5 / 8) / (1e5 / 8 + 2e4)  # what waiting for every repair leaves


def test_spares_bring_the_closed_form_back():
    law = Failures(mtbf=8e5, repair=2e4, checkpoint=20, restart=60)
    found = [
        simulate_training(5.0, nodes=8, hours=12_000, failures=replace(law, spares=spares)).goodput
        for spares in (0, 1, 6)
    ]
    assert found[0] < 0.9 * found[2] and found[0] < found[1] < found[2]
    assert found[2] == pytest.approx(law.goodput(8), rel=5e-3)


@pytest.mark.parametrize("shape", [0.7, 1.0, 3.0])
def test_crashes_bunch_by_the_shape_of_their_law(shape):
    """Mean and spread of times between crashes: cv² = Γ(1 + 2/k)/Γ(1 + 1/k)² − 1, whatever the number of nodes."""
    law = Failures(mtbf=4e4, shape=shape, interval=1000)
    training = simulate_training(10.0, nodes=4, hours=30_000, failures=law, seed=3)
    times = [event.start for event in training.timeline if event.kind == "crash"]
    gaps = [after - before for before, after in pairwise([0.0, *times])]
    spread = math.sqrt(math.gamma(1 + 2 / shape) / math.gamma(1 + 1 / shape) ** 2 - 1)
    assert fmean(gaps) == pytest.approx(1e4, rel=4 * spread / len(gaps) ** 0.5)
    assert pstdev(gaps) / fmean(gaps) == pytest.approx(spread, rel=0.05)


# ---------------------------------------------------------------- published statistics


def test_llamas_numbers_f1():
    assert LLAMA["interruptions"] == LLAMA["planned interruptions"] + LLAMA["unexpected interruptions"]
    hours, years = LLAMA_MTBF / HOUR, LLAMA_MTBF * LLAMA["gpus"] / (365 * DAY)
    assert (hours, years) == (pytest.approx(3.093, abs=5e-4), pytest.approx(5.79, abs=0.01))


def test_llamas_shares_are_not_its_counts_f2():
    """It prints 30.1 % beside 148 of 419: this project keeps the counts alone."""
    faulty = LLAMA["unexpected: faulty GPU"] / LLAMA["unexpected interruptions"]
    assert faulty == pytest.approx(0.353, abs=5e-4) and abs(faulty - 0.301) > 0.05


def test_llama_3_again_f1():
    """54 days on 2048 nodes of 8 from the MTBF of a GPU alone: as many crashes, and over 90 % where both are short."""
    nodes, per_node = int(LLAMA["gpus"] / LLAMA["gpus per node"]), int(LLAMA["gpus per node"])
    quick = Failures(mtbf=5.785 * 365 * DAY, devices=per_node, checkpoint=10, restart=120)
    slow = replace(quick, checkpoint=60, restart=300)
    plan = dict(nodes=nodes, hours=24 * LLAMA["time"])
    runs = [simulate_training(5.0, failures=quick, seed=seed, **plan) for seed in range(20)]
    crashes = fmean(run.crashes for run in runs)
    assert crashes == pytest.approx(LLAMA["unexpected interruptions"], abs=4 * (419 / 20) ** 0.5)
    assert min(run.goodput for run in runs) > LLAMA["effective time at least"]
    assert simulate_training(5.0, failures=slow, **plan).goodput < LLAMA["effective time at least"]


@pytest.mark.parametrize("gpus", [16_384, 131_072])
def test_large_jobs_of_rsc_1_f6(gpus):
    expected = mtbf_of_rate(gpus // 8, KOKOLIS["failures per 1000 node-days"]) / HOUR
    assert expected == pytest.approx(KOKOLIS[f"projected MTTF of {gpus} GPUs"], rel=0.025)  # printed with two digits
    law = Failures(mtbf=mtbf_of_rate(1), checkpoint=5, restart=5)
    training = simulate_training(1.0, nodes=gpus // 8, hours=2000 * expected, failures=law)
    assert training.mtbf / HOUR == pytest.approx(expected, rel=4 / 2000**0.5)


def test_small_jobs_of_rsc_1_are_not_independent_nodes_f6():
    """1024 GPUs: 28.8 h predicted, 7.9 h measured; and a cause common to all that explains it spoils the large job."""
    alone, measured = mtbf_of_rate(128), KOKOLIS["measured MTTF of 1024 GPUs"] * HOUR
    assert alone / HOUR == pytest.approx(28.8, abs=0.05) and alone > 3.5 * measured
    law = Failures(mtbf=mtbf_of_rate(1), common_mtbf=1 / (1 / measured - 1 / alone))
    assert law.system_mtbf(128) == pytest.approx(measured)
    assert law.system_mtbf(2048) < 0.87 * KOKOLIS["projected MTTF of 16384 GPUs"] * HOUR


def test_every_published_fact_has_unit_and_source():
    assert len({(row["system"], row["quantity"]) for row in facts()}) == len(facts()) > 20
    assert all("arXiv:" in row["source"] or "BigScience" in row["source"] for row in facts())
