"""The search: which mixes there are, how good their estimates are, and who wins where."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from statistics import median

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator.models import with_knobs
from simulator.rules import Adam
from simulator.theory.pipelines import interleaved_pipeline, pipeline
from simulator.whatif.estimate import Estimator
from simulator.whatif.mixes import Mix, mixes
from simulator.whatif.pipelining import Hops, Stage, pipelined
from simulator.whatif.trial import Trial

A100 = sim.device("a100-sxm-80gb")


def switch(bandwidth, ranks=8):
    return sim.cluster("single-switch", ranks=ranks, bandwidth=bandwidth, latency=2e-6, device=A100)


# ---------------------------------------------------------------- mixes


@given(
    ranks=st.integers(1, 48),
    batch=st.sampled_from([12, 16, 48, 96]),
    name=st.sampled_from(["gpt2-small", "llama3-8b", "resnet-50", "mixtral-8x7b"]),
)
@settings(max_examples=40, deadline=None)
def test_every_mix_is_a_strategy_for_all_ranks_and_the_whole_batch(ranks, batch, name):
    """And all are different; what the model cannot be divided by is counted."""
    model = sim.model(name, batch=batch)
    found = list(mixes(model, ranks, Counter()))
    assert len(set(found)) == len(found)
    for mix in found[::7]:
        assert mix.data * mix.tensor * mix.pipeline == ranks
        assert mix.data * mix.microbatches * mix.microbatch == batch
        mix.strategy(Adam(), None).check(ranks, model)


def test_models_that_cannot_be_shared_are_not():
    """Blocks of which only times are known have no parts, and those of a mixture of experts no halves of 2 bytes."""
    found = list(mixes(sim.Model.of_times(blocks=4, batch=8), 4, refused := Counter()))
    assert {mix.tensor for mix in found} == {1}
    assert refused["units of blocks (heads, say) do not divide"] == 3
    moe = sim.search("mixtral-8x7b", sim.cluster("dgx-h100", nodes=2), batch=16, simulate=1)
    assert "MixedPrecision" not in str(moe.best.strategy) and moe.best.mix.stage == 3


# ---------------------------------------------------------------- pipelines


@given(
    p=st.integers(2, 8), turns=st.integers(1, 5), v=st.sampled_from([1, 2, 4]), f=st.floats(0.1, 9), b=st.floats(0.1, 9)
)
def test_even_pipelines_take_what_the_closed_forms_say(p, turns, v, f, b):
    """B1 and B4."""
    m = p * turns
    wanted = pipeline(p, m, f, b) if v == 1 else interleaved_pipeline(p, m, v, f, b)
    assert pipelined([Stage(f, b)] * p, Hops(), m, v) == pytest.approx(wanted)


@given(stages=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), min_size=2, max_size=4), m=st.integers(1, 10))
@settings(max_examples=40, deadline=None)
def test_uneven_pipelines_take_what_the_simulation_says(stages, m):
    """B14. However uneven; where stages differ as those of models do it is within a few percent."""
    blocks = tuple(sim.Block(0, sim.Seconds(f), sim.Seconds(b)) for f, b in stages)
    model = sim.Model("uneven", blocks)
    run = sim.simulate(sim.Pipeline("1f1b", m), model, sim.cluster("ideal", ranks=len(stages)), steps=1)
    assert pipelined([Stage(*stage) for stage in stages], Hops(), m) == pytest.approx(run.makespan, rel=0.15)


# ---------------------------------------------------------------- estimates

SAMPLED = [
    ("gpt2-medium", sim.cluster("dgx-a100", nodes=1), 32),
    ("gpt2-xl", sim.cluster("dgx-a100", nodes=1), 64),
    ("llama2-7b", sim.cluster("dgx-h100", nodes=1), 16),
    ("resnet-50", switch(12.5e9), 256),
    ("bert-large", switch(12.5e9, 4), 64),
]


@pytest.fixture(scope="module")
def compared():
    """(model, estimated, simulated) seconds, and bytes, of mixes drawn by chance."""
    rows = []
    for name, cluster, batch in SAMPLED:
        model, dtype = sim.model(name, batch=batch), "bf16"
        estimator = Estimator(model, cluster, Adam(), dtype)
        every = [mix for mix in mixes(model, cluster.ranks, Counter()) if mix.microbatches <= 8]
        for mix in random.Random(7).sample(every, 7):
            strategy = mix.strategy(Adam(), dtype)
            run = sim.simulate(strategy, model, cluster, steps=1, fold="always", fit=False, **mix.knobs)
            row = name, estimator.parts(mix).total, run.makespan, estimator.memory(mix), max(run.peak_memory)
            rows.append(row)
    return pd.DataFrame(rows, columns=["model", "estimated", "simulated", "bytes", "peak"])


def test_estimates_order_mixes_as_simulations_do(compared):
    """Spearman's correlation, within each model; many mixes are within a few percent of each other."""
    found = [rows.estimated.rank().corr(rows.simulated.rank()) for _, rows in compared.groupby("model")]
    print("Spearman:", ", ".join(f"{one:.3f}" for one in found))
    assert min(found) > 0.85 and sum(found) / len(found) > 0.95


def test_estimates_are_near_simulations(compared):
    errors = (compared.estimated / compared.simulated - 1).abs()
    print(f"times: median {median(errors):.2%}, mean {errors.mean():.2%}, largest {errors.max():.2%}")
    assert median(errors) < 0.015
    assert errors.mean() < 0.04
    assert errors.max() < 0.2  # gathering parameters on links that tensor parallelism fills


def test_estimates_of_memory_are_near_what_programs_hold(compared):
    """C1, C2, C5-C9, B3 and B5 together."""
    errors = compared.bytes / compared.peak - 1
    print(f"memory: median {median(errors.abs()):.2%}, from {errors.min():.2%} to {errors.max():.2%}")
    assert median(errors.abs()) < 0.02
    assert errors.min() > -0.1 and errors.max() < 0.2


def test_the_parts_of_a_step_are_the_step():
    """Computation is that of the mean rank."""
    model, cluster = sim.model("gpt2-medium", batch=32), sim.cluster("dgx-a100", nodes=1)
    mix = Mix(data=2, tensor=2, pipeline=2, stage=1, microbatches=8, microbatch=2, recompute="none")
    parts = Estimator(model, cluster, Adam(), "bf16").parts(mix)
    run = sim.simulate(mix.strategy(Adam(), "bf16"), model, cluster, steps=1, **mix.knobs)
    assert parts.total == pytest.approx(run.makespan, rel=0.01)
    assert parts.compute == pytest.approx(sum(run.busy) / 8, rel=0.01)


# ---------------------------------------------------------------- fewer microbatches

LONG = [
    ("gpt2-small", Mix(data=4, pipeline=2, stage=1, microbatches=24, microbatch=2, recompute="full")),
    ("gpt2-small", Mix(pipeline=8, microbatches=27, microbatch=1, recompute="none")),
    ("gpt2-small", Mix(data=2, tensor=2, pipeline=2, stage=3, microbatches=12, microbatch=1, recompute="selective")),
    ("gpt2-small", Mix(tensor=2, pipeline=4, microbatches=24, microbatch=2, chunks=2, recompute="none")),
    ("gpt2-small", Mix(data=2, pipeline=4, stage=3, microbatches=24, microbatch=1, chunks=3, recompute="full")),
    ("gpt2-small", Mix(data=4, tensor=2, stage=1, microbatches=12, microbatch=1, recompute="none")),
    ("gpt2-small", Mix(data=8, stage=3, microbatches=16, microbatch=1, recompute="none")),
    ("resnet-50", Mix(data=2, pipeline=4, stage=1, microbatches=20, microbatch=4, recompute="none")),
]


@pytest.mark.parametrize(("name", "mix"), LONG, ids=lambda one: str(one))
def test_many_microbatches_take_and_hold_what_fewer_tell(name, mix):
    """B1, B4: the whole simulation, every rank of it, is the truth. Largest difference: 1e-12."""
    model = with_knobs(sim.model(name, batch=mix.data * mix.microbatches * mix.microbatch), **mix.knobs)
    cluster = sim.cluster("dgx-a100", nodes=1)
    step = Trial(mix, model, cluster, Adam(), "bf16").step()
    run = sim.simulate(mix.strategy(Adam(), "bf16"), model, cluster, steps=1, fold=False)
    assert step.simulated < mix.microbatches
    assert step.seconds == pytest.approx(run.makespan, rel=1e-9)
    assert step.memory == pytest.approx(max(run.peak_memory), rel=1e-12)


def test_stages_that_drift_apart_are_told_by_steps_that_grow_evenly():
    """Ranks that are ahead do not repeat themselves for long; the step grows by as much each time all the same."""
    mix = Mix(pipeline=4, chunks=6, microbatches=48, microbatch=2, recompute="full")
    model = with_knobs(sim.model("bert-large", batch=96), recompute="full")
    trial = Trial(mix, model, switch(12.5e9, 4), Adam(), "bf16")
    step = trial.step()
    assert step.simulated == 20
    assert step.seconds == pytest.approx(trial.run(48).makespan, rel=1e-9)


# ---------------------------------------------------------------- who wins


def test_small_models_on_few_devices_are_trained_with_data_parallelism_alone():
    best = sim.search("gpt2-small", sim.cluster("dgx-a100", ranks=4), batch=16, simulate=3).best
    assert (best.mix.data, best.mix.tensor, best.mix.pipeline) == (4, 1, 1)


def test_175b_shares_blocks_within_machines_alone_and_needs_a_pipeline_or_zero():
    """G9. The best mixes by estimate; simulating them takes longer."""
    model, cluster = sim.model("gpt3-175b", batch=128), sim.cluster("dgx-a100", nodes=8)
    estimator = Estimator(model, cluster, Adam(), "bf16")
    every = list(mixes(model, cluster.ranks, Counter()))
    fitting = [mix for mix in every if estimator.memory(mix) < A100.memory]
    assert all(mix.pipeline > 1 or mix.stage for mix in fitting)
    best = sorted(fitting, key=lambda mix: estimator.parts(mix).total)[:10]
    assert all(1 < mix.tensor <= 8 and mix.pipeline > 1 for mix in best)
    wide = min(estimator.parts(mix).total for mix in fitting if mix.tensor > 8)
    assert wide > 1.2 * estimator.parts(best[0]).total


def test_slow_networks_move_the_winner_from_data_to_pipeline_parallelism():
    fast, slow = (sim.search("gpt2-medium", switch(bandwidth), batch=32, simulate=3) for bandwidth in (300e9, 125e6))
    assert (fast.best.mix.data, fast.best.mix.pipeline) == (8, 1)
    assert (slow.best.mix.data, slow.best.mix.pipeline) == (1, 8)
    assert slow.best.step_time > 5 * fast.best.step_time


def test_less_memory_costs_time():
    """The winner holds less where there is less to hold it; nothing fits into too little."""
    model, times = sim.model("gpt2-medium", batch=32), []
    for memory in (80e9, 6e9):
        cluster = sim.cluster("dgx-a100", ranks=4, device=replace(A100, memory=memory))
        found = sim.search(model, cluster, simulate=2)
        assert max(found.table.memory) <= memory
        times.append(found.best.step_time)
    assert times[1] > times[0]
    assert any("does not fit" in reason for reason in found.refused)
    with pytest.raises(ValueError, match=r"does not fit into 0\.5 GB, by"):
        sim.search(model, sim.cluster("dgx-a100", ranks=4, device=replace(A100, memory=0.5e9)), simulate=2)


def test_the_cheapest_may_have_fewer_devices_than_the_fastest():
    """On a slow network more devices take less time and more money."""
    clusters = [switch(1.25e9, ranks) for ranks in (1, 8)]
    fastest = sim.search("gpt2-small", clusters, batch=32, simulate=4)
    cheapest = sim.search("gpt2-small", clusters, batch=32, objective="cost", simulate=4)
    assert fastest.best.cluster.ranks == 8 and cheapest.best.cluster.ranks == 1
    assert cheapest.best.cost < fastest.best.cost
    assert "dearer" in cheapest.why


# ---------------------------------------------------------------- what is found


def test_the_best_is_ready_to_be_simulated_and_gives_its_time():
    model, cluster = sim.model("gpt2-medium"), sim.cluster("dgx-a100", nodes=1)
    found = sim.search(model, cluster, batch=32, dtype="fp16", simulate=3)
    best = found.best
    run = sim.simulate(best.strategy, model, best.cluster, steps=1, **best.knobs)
    assert run.makespan == pytest.approx(best.step_time, rel=1e-9)
    assert max(run.peak_memory) == pytest.approx(best.memory, rel=1e-12)
    assert run.cost() == pytest.approx(best.cost)
    table = found.table
    assert len(table) == 3 and list(table.step_time) == sorted(table.step_time)
    assert set(table.data * table.tensor * table.pipeline) == {8}
    assert (table[[f"{part}_time" for part in ("compute", "tensor", "bubble", "data")]].sum(axis=1)).tolist() == (
        pytest.approx(table.estimate.tolist())
    )


def test_it_shows_itself_as_a_table_with_reasons():
    found = sim.search("gpt2-small", sim.cluster("dgx-a100", ranks=2), batch=4, simulate=2)
    assert str(found.best.mix) in found.why and f"{found.estimated} mixes were compared" in found.why
    assert found.why in str(found) and "step_time" in repr(found)
    assert "<table" in found._repr_html_() and "mixes were compared" in found._repr_html_()


def test_what_is_extrapolated_is_told_and_what_cannot_win_is_not_simulated():
    """On a slow network pipelines of many microbatches are far ahead: of the 8 that might be simulated fewer are."""
    found = sim.search("gpt2-small", switch(125e6, 4), batch=96, progress=False)
    table, every = found.table, [choice.extrapolated for choice in found.choices]
    assert any(every) and list(table.simulated < table.microbatches) == every
    assert f"Of {sum(every)} of these a step is extrapolated" in found.why
    assert 1 <= len(table) < 8 and f"{len(table)} simulated" in found.why


def test_rules_that_need_whole_tensors_are_not_sharded():
    found = sim.search("gpt2-small", sim.cluster("dgx-a100", ranks=2), batch=4, rule=sim.rules.LAMB(), simulate=2)
    assert set(found.table.stage) == {0}
    assert any("whole ones" in reason for reason in found.refused)


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"objective": "speed"}, "'time', 'cost'"),
        ({"objective": "cost", "cluster": sim.cluster("ideal", ranks=2)}, "price"),
        ({"model": "gpt5"}, "gpt5"),
        ({"model": 3}, "a Model"),
        ({"cluster": "dgx-a100"}, "a cluster"),
        ({"cluster": []}, "a cluster is missing"),
        (
            {"model": "gpt2-small", "cluster": sim.cluster("dgx-a100", ranks=2), "batch": 8, "dtype": "fp8"},
            "in the dtype of GPT-2 small; NVIDIA A100 SXM 80GB has peaks for bf16, fp16, fp32, none for 'fp8'",
        ),
        ({"simulate": 0}, "simulate"),
        ({"rule": "adam"}, "Adam"),
    ],
)
def test_mistakes_are_told(knobs, told):
    with pytest.raises(ValueError, match=told):
        sim.search(**{"model": sim.Model.of_times(batch=4), "cluster": sim.cluster("ideal", ranks=2), **knobs})


def test_clusters_that_lack_the_dtype_are_left_out_and_named():
    two = [sim.cluster("dgx-a100", ranks=2), sim.cluster("dgx-h100", ranks=2)]
    found = sim.search("gpt2-small", two, batch=8, dtype="fp8", simulate=2)
    assert found.best.cluster is two[1] and any("none for 'fp8'" in reason for reason in found.refused)


def test_a_cost_that_nobody_knows_is_nan():
    found = sim.search(sim.Model.of_times(batch=4), sim.cluster("ideal", ranks=2), simulate=2)
    assert found.best.cost is None and found.table.cost.dtype == float and found.table.cost.isna().all()
