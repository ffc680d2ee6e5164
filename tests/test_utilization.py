"""MFU and HFU: shares of what devices promise, held to closed forms and to published figures."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lab
import simulator as sim
from simulator import Block, Device, Flops, Model, metrics
from simulator.facts import Facts

CHIP = Device("a chip", flops=1e12)


def a_model(blocks: int = 4, batch: int = 8, flops: float = 1e12, recomputes: bool = False) -> Model:
    """Equal blocks; backward twice forward."""
    return Model("m", (Block(forward=Flops(flops), backward=Flops(2 * flops), recomputes=recomputes),) * blocks, batch)


def ideal(ranks: int, device: Device | list[Device] = CHIP) -> sim.Cluster:
    return sim.cluster("ideal", ranks=ranks, device=device)


@given(ranks=st.integers(1, 4), blocks=st.integers(1, 4), steps=st.integers(1, 3), share=st.floats(0.1, 1.0))
@settings(max_examples=25, deadline=None)
def test_computing_all_the_time_at_a_share_of_the_peak_has_that_mfu(ranks, blocks, steps, share):
    device = Device("slower than promised", flops=share * 1e14, peaks={"fp32": 1e14})
    run = sim.simulate(sim.DataParallel(), a_model(blocks, batch=12), ideal(ranks, device), steps=steps)
    assert run.mfu == pytest.approx(share, rel=1e-9) == run.hfu


@given(stages=st.integers(1, 4), microbatches=st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_what_a_pipeline_loses_is_its_bubble(stages, microbatches):
    """B1: of m + p - 1 slots m are used."""
    strategy = sim.Pipeline("gpipe", microbatches=microbatches)
    run = sim.simulate(strategy, a_model(stages, batch=microbatches), ideal(stages), steps=2)
    assert run.mfu == pytest.approx(microbatches / (microbatches + stages - 1), rel=1e-9)
    assert run.mfu == pytest.approx(1 - run.bubble, rel=1e-9)


@pytest.mark.parametrize("recompute", ["none", "full"])
def test_hfu_over_mfu_is_hardware_over_model_flops(recompute):
    """C16: with full recomputation 8/6 where nothing but layers counts."""
    model = sim.with_knobs(a_model(), recompute=recompute)
    run = sim.simulate(sim.DataParallel(), model, ideal(2), steps=2)
    assert run.hfu / run.mfu == pytest.approx(8 / 6 if recompute == "full" else 1.0, rel=1e-12)
    assert run.hfu == pytest.approx(1.0, rel=1e-9)  # every FLOP of it is done, at the peak


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_the_flops_are_the_models(recompute):
    """C14: 96 B·s·l·h²(1 + s/6h + V/16lh) with full recomputation, 72(… + V/12lh) without."""
    model = sim.model("gpt3-175b", batch=1536, recompute=recompute)
    facts = Facts.of(model, sim.cluster("dgx-a100", nodes=1))
    shape = model.recipe
    scale = shape.layers * shape.sequence * shape.hidden**2
    attention, letters = shape.sequence / (6 * shape.hidden), shape.vocab / (shape.layers * shape.hidden)
    assert facts.model_flops == pytest.approx(72 * scale * (1 + attention + letters / 12), rel=1e-9)
    if recompute == "full":
        assert facts.hardware_flops == pytest.approx(96 * scale * (1 + attention + letters / 16), rel=1e-9)
    assert facts.hardware_flops >= facts.model_flops and (facts.tokens, facts.dtype) == (2048, "bf16")


@pytest.mark.parametrize(
    ("achieved", "peak", "share"), [(400e12, 989e12, 0.404), (430e12, 989e12, 0.435), (163e12, 312e12, 0.522)]
)
def test_published_utilizations(achieved, peak, share):
    """C17: Llama-3 405B at 400 and 430 TFLOP/s of an H100. C16: Megatron's 163 of an A100's 312 is an HFU."""
    device = Device("published", flops=achieved, peaks={"bf16": peak})
    model = replace(a_model(recomputes=True), parameter_bytes=2)
    run = sim.simulate(sim.DataParallel(), model, ideal(4, device), steps=2)
    assert run.hfu == pytest.approx(share, abs=1e-3)
    assert run.mfu == pytest.approx(share * 6 / 8, abs=1e-3)


def test_servers_do_not_count():
    devices = [Device("a server", flops=1e9), CHIP, CHIP]
    run = sim.simulate(sim.ParameterServer(mode="sync"), a_model(batch=8), ideal(3, devices), steps=3)
    assert run.workers == (1, 2) and run.mfu == pytest.approx(1.0, rel=1e-9)


def test_clients_that_a_round_leaves_out_learn_nothing():
    """Two of eight clients work at a time, at their peaks: a quarter of all peaks, for a quarter of every batch."""
    strategy = sim.FedAvg(local_steps=2, clients_per_round=2)
    run = sim.simulate(strategy, a_model(batch=8), ideal(9), steps=8)
    assert metrics.samples_per_step(run) == 2 and run.throughput == pytest.approx(2 * 8 / run.makespan)
    assert run.mfu == pytest.approx(2 / 8, rel=1e-9)
    found = run.extrapolate(samples=1600)
    assert (found.steps, found.samples) == (800, 1600)


def test_peaks_of_different_devices_add_up():
    devices = [CHIP, Device("faster", flops=3e12)]
    run = sim.simulate(sim.DataParallel(), a_model(batch=8), ideal(2, devices), steps=2)
    assert run.mfu == pytest.approx(2 / 4, rel=1e-9)  # both do as much, at the pace of the slower


def test_the_first_step_does_not_count_where_there_are_more():
    fast = sim.simulate(sim.DataParallel(), a_model(), ideal(2), steps=3)
    assert metrics.steady_times(fast) == fast.step_times[1:] and metrics.steady_step(fast) == fast.step_times[1]
    one = sim.simulate(sim.DataParallel(), a_model(), ideal(2), steps=1)
    assert metrics.steady_times(one) == [one.makespan]


def test_what_is_free_is_infinitely_well_used():
    device = Device("free", flops=1e300)
    assert sim.simulate(sim.Single(), a_model(flops=1e-300), ideal(1, device)).mfu == math.inf


def test_without_flops_or_peaks_it_says_what_to_do():
    timed = sim.simulate(sim.Single(), Model.of_times(), ideal(1), steps=1)
    for name in ("mfu", "hfu"):
        with pytest.raises(ValueError, match=r"FLOP, which are not known of 4 blocks .*made of operations"):
            getattr(timed, name)
    run = sim.simulate(sim.Single(), a_model(), ideal(1), steps=1)
    with pytest.raises(ValueError, match=r"run does not know: .* facts=run.facts.on\(cluster\)\) adds"):
        _ = replace(run, facts=Facts.of(a_model())).mfu
    with pytest.raises(ValueError, match="a chip has peaks for bf16, none for fp32"):
        _ = replace(run, facts=Facts.of(a_model(), ideal(1, replace(CHIP, peaks={"bf16": 1e12})))).mfu
    with pytest.raises(ValueError, match="unusual width"):
        _ = replace(run, facts=Facts.of(replace(a_model(), parameter_bytes=3), ideal(1))).mfu


def test_a_real_run_knows_its_flops_and_can_be_told_its_devices():
    run = lab.execute(sim.Single(), sim.problem("quadratic"), ranks=1, steps=3, progress=False)
    with pytest.raises(ValueError, match="does not know"):
        _ = run.mfu
    told = replace(run, facts=run.facts.on(ideal(1, Device("a core", flops=1e15))))
    assert 0 < told.mfu < 1 and told == run


def test_facts_name_devices_in_the_order_of_ranks():
    other = Device("other", flops=2e12)
    facts = Facts.of(a_model(), ideal(5, [CHIP, CHIP, other, CHIP, CHIP]))
    assert facts.devices == ((CHIP, 2), (other, 1), (CHIP, 2))
    assert facts.fleet == [(CHIP, range(2)), (other, range(2, 3)), (CHIP, range(3, 5))]
    assert Facts.from_json(facts.to_json()) == facts
    assert len(Facts.of(a_model(), sim.cluster("dgx-h100", nodes=2048)).devices) == 1
