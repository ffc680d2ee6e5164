"""Long trainings from short runs: what is extrapolated is what would have been simulated, and what was published."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import Block, Device, Flops, Model, failures, metrics, noise

CHIP = Device("a chip", flops=1e12, price=3.0, power=400.0, idle=100.0)
STRATEGIES = [sim.DataParallel(), sim.Sharded(3), sim.Pipeline("1f1b", microbatches=4), sim.Single()]


def a_run(strategy=STRATEGIES[0], steps: int = 3, ranks: int = 2, **more) -> sim.Run:
    ranks = 1 if isinstance(strategy, sim.Single) else ranks
    model = Model.of_times(blocks=4, parameters=1_000_000, activation_bytes=1e5, batch=8)
    cluster = sim.cluster("single-switch", ranks=ranks, bandwidth=1e6, latency=1e-3, device=CHIP)
    return sim.simulate(strategy, model, cluster, steps=steps, **more)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_what_is_extrapolated_is_what_would_have_been_simulated(strategy):
    long, short = a_run(strategy, steps=9), a_run(strategy, steps=3)
    found = short.extrapolate(steps=9)
    assert found.seconds == pytest.approx(long.makespan, rel=1e-9)
    assert found.cost == pytest.approx(long.cost(), rel=1e-9)
    assert found.energy == pytest.approx(long.energy, rel=1e-9)
    assert (found.steps, found.samples) == (9, 72) and "2 steps after the first" in found.basis


@given(steps=st.integers(1, 4), more=st.integers(1, 1000))
@settings(max_examples=10, deadline=None)
def test_a_run_extrapolated_to_itself_is_itself(steps, more):
    run = a_run(steps=steps, noise=noise.gamma(shape=4))
    same, longer = run.extrapolate(steps=steps), run.extrapolate(steps=steps + more)
    assert (same.seconds, same.cost, same.energy) == pytest.approx((run.makespan, run.cost(), run.energy), rel=1e-12)
    each = sum(run.step_times[1:]) / (steps - 1) if steps > 1 else run.makespan
    assert longer.seconds == pytest.approx(run.makespan + more * each)
    assert longer.cost / longer.seconds == pytest.approx(run.cost() / run.makespan)
    assert 200 <= longer.energy / longer.seconds <= 800  # two ranks, between idle and full power


def test_training_time_of_gpt3():
    """C15: 8·T·P/(n·X): 300e9 tokens, 174.6e9 parameters, 1024 GPUs at 140 TFLOP/s are 33.83 days (paper: 34)."""
    assert _days(174.616e9, 300e9, 1024, 140e12, recomputes=True) == pytest.approx(33.83, rel=2e-3)


def test_training_time_of_a_trillion_parameters():
    """C15: 450e9 tokens, 1008e9 parameters, 3072 GPUs at 163 TFLOP/s are 83.88 days (paper: 84)."""
    assert _days(1008.04e9, 450e9, 3072, 163e12, recomputes=True) == pytest.approx(83.88, rel=2e-3)


def test_training_time_of_llama3():
    """C17: 6·N·D = 3.79e25 FLOP; at 400 TFLOP/s 16 384 GPUs need 67 days, and more with the goodput that is left."""
    days = _days(405e9, 15.6e12, 16_384, 400e12)
    assert days == pytest.approx(3.79e25 / (16_384 * 400e12) / 86400, rel=1e-3)
    good = failures.goodput(mtbf=3.093 * 3600, checkpoint=10, restart=120)
    assert _days(405e9, 15.6e12, 16_384, 400e12, goodput=good) == pytest.approx(days / good, rel=1e-9)


def _days(parameters: float, tokens: float, gpus: int, achieved: float, recomputes: bool = False, **more) -> float:
    """On 8 ranks that are as fast as all GPUs together; a sample is one sequence of 2048 tokens."""
    forward = 2 * parameters * 2048
    block = Block(forward=Flops(forward), backward=Flops(2 * forward), recomputes=recomputes)
    cluster = sim.cluster("ideal", ranks=8, device=Device("a share of all", flops=achieved * gpus / 8))
    run = sim.simulate(sim.DataParallel(), Model("m", (block,), batch=1536), cluster, steps=2)
    run = replace(run, facts=replace(run.facts, tokens=2048))
    return run.extrapolate(tokens=tokens, **more).days


def test_budgets_are_counted_in_whole_steps():
    run = a_run()
    assert run.extrapolate(samples=8).steps == 1 and run.extrapolate(samples=8.1).steps == 2
    assert run.extrapolate(epochs=1.5, dataset=80).steps == 15
    tokens = replace(run, facts=replace(run.facts, tokens=100)).extrapolate(tokens=1e6)
    assert (tokens.steps, tokens.tokens) == (1250, 1e6) and run.extrapolate(steps=5).tokens is None


@pytest.mark.parametrize("name, tokens", [("t5-base", 512), ("mixtral-8x7b", 4096), ("llama3-8b", 8192)])
def test_texts_of_every_kind_of_model_are_counted_in_tokens(name, tokens):
    """And images, videos and clicks in samples: a training on a trillion tokens is as long as one on its texts."""
    run = sim.simulate(sim.DataParallel(), sim.model(name, batch=32), sim.cluster("ideal", ranks=2), steps=1, fit=False)
    assert run.facts.tokens == tokens
    assert run.extrapolate(tokens=1e12) == run.extrapolate(samples=1e12 / tokens)
    assert run.extrapolate(tokens=1e12).tokens == pytest.approx(1e12, rel=1e-4)


@pytest.mark.parametrize("name", ["resnet-50", "vit-b-16", "slowfast-r50-8x8", "dlrm-criteo-1tb"])
def test_images_videos_and_clicks_have_no_tokens(name):
    model = sim.model(name, batch=32)
    run = sim.simulate(sim.DataParallel(), model, sim.cluster("ideal", ranks=2), steps=1, fit=False)
    assert run.facts.tokens is run.extrapolate(samples=1e6).tokens is None
    with pytest.raises(ValueError, match=r"dataclasses.replace\(model, tokens=2048\)"):
        run.extrapolate(tokens=1e9)
    told = sim.simulate(sim.DataParallel(), replace(model, tokens=196), sim.cluster("ideal", ranks=2), fit=False)
    assert told.extrapolate(tokens=196e6) == told.extrapolate(samples=1e6)


def test_problems_have_tokens_where_each_has_a_target_and_modules_where_they_are_told():
    assert {name: sim.problem(name).model().tokens for name in ("tiny-gpt", "tiny-moe", "digits-conv")} == {
        "tiny-gpt": 64, "tiny-moe": 32, "digits-conv": None
    }  # fmt: skip
    import torch

    words = torch.zeros(4, 16, dtype=torch.long)
    made = [sim.Model.from_torch(torch.nn.Embedding(10, 8), words, tokens=many).tokens for many in (None, 16)]
    assert made == [None, 16]
    with pytest.raises(ValueError, match="of a sample: tokens is a whole number, at least 1; got tokens=0"):
        sim.Model.from_torch(torch.nn.Embedding(10, 8), words, tokens=0)


def test_a_goodput_stretches_time_money_and_energy():
    run = a_run()
    whole, half = run.extrapolate(steps=100), run.extrapolate(steps=100, goodput=0.5)
    for name in ("seconds", "cost", "energy"):
        assert getattr(half, name) == pytest.approx(2 * getattr(whole, name))
    assert "left out" in whole.basis and "failures" in whole.basis and "goodput of 0.5" in half.basis


def test_it_says_what_it_rests_on():
    assert "a single step of" in a_run(steps=1).extrapolate(steps=10).basis
    noisy = a_run(steps=4, noise=noise.gamma(shape=4))
    found = noisy.extrapolate(steps=1000)
    apart = max(noisy.step_times[1:]) - min(noisy.step_times[1:])
    assert f"at most {apart / metrics.steady_step(noisy):.1%} apart" in found.basis
    assert "at most 0.0% apart" in a_run().extrapolate(steps=10).basis
    assert str(found).startswith("1,000 steps in ") and " USD, " in str(found) and found.basis in str(found)
    assert found.carbon(grid=1000) == pytest.approx(found.energy / 3.6e6)


def test_what_nobody_knows_is_none():
    cluster = sim.cluster("ideal", ranks=2)
    found = sim.simulate(sim.DataParallel(), Model.of_times(), cluster, steps=2).extrapolate(steps=10)
    assert (found.cost, found.energy, found.tokens) == (None, None, None) and "USD" not in str(found)
    with pytest.raises(ValueError, match="give a Device with its power"):
        found.carbon(100)


@pytest.mark.parametrize(
    ("budget", "match"),
    [
        ({}, "give one of them; got none"),
        ({"steps": 1, "samples": 2}, "give one of them"),
        ({"steps": 0}, "steps is a whole number, at least 1"),
        ({"samples": -1}, "samples is a finite number, above 0"),
        ({"tokens": 1e9}, "have no known number of tokens: give samples= or steps="),
        ({"epochs": 2}, "dataset=, the samples of an epoch, goes with epochs="),
        ({"steps": 2, "dataset": 5}, "dataset=, the samples of an epoch, goes with epochs="),
        ({"steps": 2, "goodput": 1.5}, "goodput is the useful share of time, at most 1"),
    ],
)
def test_budgets_that_mean_nothing_are_refused(budget, match):
    with pytest.raises(ValueError, match=match):
        a_run().extrapolate(**budget)


STACKED = sim.stack(sim.Pipeline("1f1b", microbatches=4, stages=4), sim.DataParallel())


@pytest.mark.parametrize("strategy", [sim.DataParallel(), STACKED], ids=str)
def test_ranks_that_are_simulated_once_count_as_often_as_they_are(strategy):
    model = Model("m", (Block(forward=Flops(1e12), backward=Flops(2e12), parameters=1000),) * 4, batch=512)
    cluster = sim.cluster("single-switch", ranks=128, bandwidth=1e6, latency=1e-3, device=CHIP)
    folded, whole = (sim.simulate(strategy, model, cluster, steps=2, fold=fold) for fold in (True, False))
    for name in ("mfu", "hfu", "energy"):
        assert getattr(folded, name) == pytest.approx(getattr(whole, name), rel=1e-9)
    assert folded.cost() == pytest.approx(whole.cost(), rel=1e-9)
    assert str(folded.extrapolate(steps=1000)) == str(whole.extrapolate(steps=1000))


def test_small_trainings_have_three_digits_too():
    found = a_run().extrapolate(steps=100)
    told = {cost: str(replace(found, cost=cost, energy=3.6e6 * cost)) for cost in (0.000371234, 15.4512, 1234567.0)}
    said = {cost: text.split(", ", 1)[1].split(";")[0] for cost, text in told.items()}
    assert list(said.values()) == [
        "0.000371 USD, 0.000371 kWh",
        "15.5 USD, 15.5 kWh",
        "1,234,567 USD, 1,234,567 kWh",
    ]


def test_a_dataset_may_be_written_as_a_float():
    assert a_run().extrapolate(epochs=1, dataset=1e6) == a_run().extrapolate(samples=1e6)
    with pytest.raises(ValueError, match="dataset is a finite number, above 0"):
        a_run().extrapolate(epochs=1, dataset=0)
