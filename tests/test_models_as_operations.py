"""Transformers as operations: their parameters, FLOPs and bytes, and what strategies make of them."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from common.transformers import A100, GPT3, SMALL, layer

import simulator as sim
from simulator.cutting import Cut, local

MT_NLG = dict(layers=105, hidden=20480, heads=128, sequence=2048, vocab=51200)
TRILLION = dict(layers=128, hidden=25600, heads=160, sequence=2048, vocab=51200)


def squares(shape):
    return shape["sequence"] * shape["hidden"], 5 * shape["heads"] * shape["sequence"] / shape["hidden"]


# ---------------------------------------------------------------- parameters and FLOPs


@pytest.mark.parametrize("shape, billions", [(GPT3, 174.616), (TRILLION, 1008.04)])
def test_c13_parameters(shape, billions):
    n, h, s, v = (shape[name] for name in ("layers", "hidden", "sequence", "vocab"))
    model = sim.transformer(**shape)
    assert model.parameters == 12 * n * h * h + 13 * n * h + (v + s) * h
    assert model.parameters / 1e9 == pytest.approx(billions, rel=1e-5)
    assert sim.transformer(**shape, final_norm=True).parameters == model.parameters + 2 * h


@pytest.mark.parametrize("shape", [GPT3, MT_NLG, TRILLION, SMALL])
def test_c14_flops_with_and_without_recomputation(shape):
    n, h, s, v = (shape[name] for name in ("layers", "hidden", "sequence", "vocab"))
    model, full = sim.transformer(**shape), sim.transformer(**shape, recompute="full")
    once = 72 * s * n * h * h * (1 + s / (6 * h) + v / (12 * n * h))
    assert model.model_flops == model.hardware_flops == full.model_flops == pytest.approx(once, rel=1e-9)
    assert full.hardware_flops == pytest.approx(96 * s * n * h * h * (1 + s / (6 * h) + v / (16 * n * h)), rel=1e-9)


def test_c14_gpt3_is_more_than_eight_flops_per_parameter_and_token():
    model = sim.transformer(**GPT3, recompute="full")
    assert 1536 * model.hardware_flops == pytest.approx(4.511e18, rel=1e-3)
    assert model.hardware_flops / (8 * model.parameters * 2048) == pytest.approx(1.0265, rel=1e-3)


@pytest.mark.parametrize(
    "shape, tokens, chips, achieved, days",
    [(GPT3, 300e9, 1024, 140e12, 33.83), (TRILLION, 450e9, 3072, 163e12, 83.88)],
)
def test_c15_days_of_training(shape, tokens, chips, achieved, days):
    model = sim.transformer(**shape)
    assert 8 * tokens * model.parameters / (chips * achieved) / 86400 == pytest.approx(days, rel=2e-3)
    full = sim.transformer(**shape, recompute="full")
    steps = tokens / shape["sequence"]
    assert steps * full.hardware_flops / (chips * achieved) / 86400 == pytest.approx(days, rel=0.03)


def test_c16_full_recomputation_does_a_third_more():
    """HFU/MFU is 8/6 but for the scores, which are not recomputed."""
    full = sim.transformer(**GPT3, recompute="full")
    layers = [replace(full, blocks=full.blocks[1:-1])]
    assert layers[0].hardware_flops / layers[0].model_flops == pytest.approx(8 / 6, rel=1e-12)
    assert 1.32 < full.hardware_flops / full.model_flops < 8 / 6


@pytest.mark.parametrize("shape, of_forward, of_all", [(GPT3, 0.027, 0.0090), (MT_NLG, 0.0164, 0.0055)])
def test_c11_cost_of_selective_recomputation(shape, of_forward, of_all):
    """The published 2.7 and 1.6 % are shares of a forward pass; of both passes they are a third of that."""
    s, h = shape["sequence"], shape["hidden"]
    none, some = layer(shape), layer(shape, recompute="selective")
    extra = some.backward.flops - none.backward.flops
    assert extra == 4 * s * s * h
    assert extra / none.forward.flops == pytest.approx(s / (6 * h + s), rel=1e-12)
    assert extra / none.forward.flops == pytest.approx(of_forward, rel=0.01)
    assert extra / (none.forward.flops + none.backward.flops) == pytest.approx(of_all, rel=0.01)


def test_c18_attention_outweighs_the_rest_beyond_six_times_the_width():
    h, a = 512, 8
    for s, more in ((6 * h, False), (6 * h + 64, True)):
        parts = layer(dict(layers=1, hidden=h, heads=a, sequence=s, vocab=64)).parts
        core = parts[2].forward.flops
        assert (core > sum(part.forward.flops for part in parts) - core) is more
    s = 34 * h // (5 * a)  # 435 tokens where heads have 64 columns
    for tokens, more in ((s - 1, False), (s + 2, True)):
        kept = layer(dict(layers=1, hidden=h, heads=a, sequence=tokens, vocab=64)).saved_bytes
        assert (kept > 2 * 34 * tokens * h) is more


# ---------------------------------------------------------------- bytes kept


@pytest.mark.parametrize("shape, gigabytes", [(GPT3, 2.869), (MT_NLG, None)])
def test_c5_bytes_kept_per_layer(shape, gigabytes):
    size, scores = squares(shape)
    assert layer(shape).saved_bytes == pytest.approx(size * (34 + scores), rel=1e-12)
    if gigabytes:
        assert layer(shape).saved_bytes / 1e9 == pytest.approx(gigabytes, rel=1e-3)
        whole = sum(block.saved_bytes for block in sim.transformer(**shape).blocks[1:-1])
        assert whole / 1e9 == pytest.approx(275.4, rel=1e-3)


@pytest.mark.parametrize("t", [1, 2, 8])
@pytest.mark.parametrize("shape", [GPT3, MT_NLG])
def test_c6_c7_c8_c9_bytes_kept_by_ranks_that_share_a_layer(shape, t):
    size, scores = squares(shape)
    whole, split = Cut(tensor=(0, t)), Cut(tensor=(t - 1, t), sequence=True)
    c6 = 10 + 24 / t + scores / t
    assert layer(shape, whole).saved_bytes == pytest.approx(size * c6, rel=1e-12)
    assert layer(shape, split).saved_bytes == pytest.approx(size * (34 + scores) / t, rel=1e-12)
    assert layer(shape, split, recompute="selective").saved_bytes == pytest.approx(34 * size / t, rel=1e-12)
    assert layer(shape, whole, recompute="full").saved_bytes == 2 * size
    assert layer(shape, split, recompute="full").saved_bytes == 2 * size / t


def test_c6_c7_c8_gigabytes_of_gpt3():
    whole, split = Cut(tensor=(0, 8)), Cut(tensor=(0, 8), sequence=True)
    kept = [layer(GPT3, whole), layer(GPT3, split), layer(GPT3, split, recompute="selective")]
    assert [block.saved_bytes / 1e9 for block in kept] == pytest.approx([0.5788, 0.3586, 0.10695], rel=1e-3)


@pytest.mark.parametrize("shape, share", [(GPT3, 0.702), (MT_NLG, 0.653)])
def test_c10_selective_recomputation_saves(shape, share):
    saved = 1 - layer(shape, recompute="selective").saved_bytes / layer(shape).saved_bytes
    assert saved == pytest.approx(share, rel=1e-3)


def test_c12_flash_attention_keeps_no_scores():
    size, _ = squares(GPT3)
    assert layer(GPT3, flash=True).saved_bytes == 34 * size


@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_the_memory_of_a_program_grows_by_one_layer_for_each_layer(recompute, sequence):
    """What ``memory`` reads from the text is what the formulas say (C6 to C9)."""
    shape = dict(GPT3, hidden=1024, heads=16, sequence=512)

    def held(layers):
        model = sim.transformer(**{**shape, "layers": layers}, recompute=recompute)
        return sim.memory(sim.TensorParallel(sequence), model, ranks=4)[0].peak.activations

    kept = layer(shape, Cut(tensor=(0, 4), sequence=sequence), recompute=recompute).saved_bytes
    assert held(5) - held(4) == pytest.approx(kept, rel=1e-12)


def test_the_memory_of_one_rank_grows_by_one_layer_for_each_layer():
    def held(layers):
        model = sim.transformer(**{**SMALL, "layers": layers})
        return sim.memory(sim.Single(), model, ranks=1)[0].peak.activations

    assert held(5) - held(4) == pytest.approx(layer(SMALL).saved_bytes, rel=1e-12)


# ---------------------------------------------------------------- shapes


def test_shared_keys_gates_and_experts_have_the_parameters_they_should():
    h, f, kv = 256, 640, 2
    plain = dict(bias=False, norm="rms", positions="rotary")
    gated = sim.transformer(**SMALL, kv_heads=kv, ffn=f, gated=True, tied=False, final_norm=True, **plain)
    attention = 2 * h * h + 2 * h * kv * h // 8
    assert gated.parameters == 4 * (attention + 3 * h * f + 2 * h) + 2 * 512 * h + h
    mixed = sim.transformer(**SMALL, ffn=f, experts=8, top=2, **plain)
    assert mixed.blocks[1].parameters == 4 * h * h + 8 * 2 * h * f + 8 * h + 2 * h
    dense = sim.transformer(**SMALL, ffn=2 * f, **plain)  # two experts do what one of twice the width does
    gate = 2 * 64 * h * 8
    assert mixed.blocks[1].forward.flops == pytest.approx(dense.blocks[1].forward.flops + gate)


@pytest.mark.parametrize("t", [2, 3, 8])
def test_ranks_that_share_a_transformer_hold_all_of_it(t):
    model = sim.transformer(**SMALL)
    held = [local(model, Cut(tensor=(index, t))).parameters for index in range(t)]
    replicated = sum(part.parameters for block in model.blocks for part in block.parts)
    assert sum(held) == model.parameters + (t - 1) * replicated


def test_the_products_of_a_block_are_those_of_its_parts():
    for block in sim.transformer(**SMALL, recompute="selective").blocks:
        assert block.forward.flops == pytest.approx(sum(part.forward.flops for part in block.parts))
        assert block.backward.flops == pytest.approx(sum(part.backward.flops for part in block.parts))


def test_a_transformer_of_96_layers_is_made_at_once():
    sim.transformer(**GPT3)
    start = time.process_time()
    model = sim.transformer(**GPT3)
    assert time.process_time() - start < 0.05
    assert len({id(block) for block in model.blocks}) == 3


@pytest.mark.parametrize(
    "knobs, said",
    [
        (dict(heads=0), "heads is a whole number"),
        (dict(recompute="some"), "recompute is one of 'none', 'selective', 'full'"),
        (dict(norm="batch"), "norm is one of"),
        (dict(positions="sinus"), "positions is one of"),
        (dict(experts=2, top=3), "at most all experts"),
        (dict(kv_heads=3, heads=7, hidden=256), "whole number of columns"),
        (dict(dtype="int3"), "a dtype is one of"),
        (dict(hidden=65, heads=4), "heads divide hidden.*got hidden=65, heads=4"),
        (dict(routing=0.5), "routing is a finite number"),
    ],
)
def test_knobs_that_make_no_transformer_are_refused(knobs, said):
    with pytest.raises(ValueError, match=said):
        sim.transformer(**{**SMALL, **knobs})


# ---------------------------------------------------------------- strategies


@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("t", [2, 4, 8])
def test_g9_tensor_parallelism_sends_eight_activations_a_layer(t, sequence):
    cluster = sim.Cluster.flat(t, 300e9, 1e-6, A100)

    def sent(layers, recompute="none"):
        model = sim.transformer(**{**SMALL, "layers": layers}, batch=2, recompute=recompute)
        run = sim.simulate(sim.TensorParallel(sequence), model, cluster, steps=1)
        return sum(span.bytes for span in run.spans if span.rank == 0)

    # With tokens split, gradients of what all ranks hold are added up too: both norms and biases.
    replicated = sum(part.parameters for part in sim.transformer(**SMALL).blocks[1].parts) * 2 * 2 * (t - 1) / t
    act = 2 * 64 * 256 * 2  # samples, tokens, hidden, bytes
    more = replicated if sequence else 0
    assert sent(5) - sent(4) == pytest.approx(8 * act * (t - 1) / t + more, rel=1e-9)
    # What runs again tells again what its forward pass told: half as much more.
    assert sent(5, "full") - sent(4, "full") == pytest.approx(12 * act * (t - 1) / t + more, rel=1e-9)
    assert sent(5, "selective") == sent(5)


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize(
    "strategy, ranks",
    [
        (sim.Hybrid(data=2, tensor=2, pipeline=2, microbatches=2), 8),
        (sim.Hybrid(tensor=2, pipeline=2, microbatches=2, sequence=True), 4),
        (sim.Hybrid(context=2, tensor=2), 4),
        (sim.Hybrid(data=2, zero=3), 2),
        (sim.Pipeline("zb-h1", microbatches=4), 4),
        (sim.Single(microbatches=2), 1),
    ],
)
def test_what_is_recomputed_takes_longer_and_less_memory(strategy, ranks, recompute):
    cluster = sim.Cluster.flat(ranks, 300e9, 1e-6, A100)

    def run(how):
        return sim.simulate(strategy, sim.transformer(**SMALL, batch=8, recompute=how), cluster, steps=1)

    plain, other = run("none"), run(recompute)
    if recompute == "none":
        assert other.makespan == plain.makespan
    else:
        assert other.makespan > plain.makespan
        assert max(other.peak_memory) <= max(plain.peak_memory)


@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize(
    "strategy", [sim.ExpertParallel(), sim.Hybrid(expert=2, tensor=2), sim.Hybrid(data=2, expert=2)]
)
def test_a_mixture_of_experts_runs_on_ranks_that_share_its_experts(strategy, recompute):
    cluster = sim.Cluster.flat(4, 300e9, 1e-6, A100)

    def run(routing):
        model = sim.transformer(**SMALL, batch=8, experts=8, top=2, routing=routing, recompute=recompute)
        return sim.simulate(strategy, model, cluster, steps=1)

    even = run(1.0)
    travelled = [span for span in even.spans if span.rank == 0 and span.instruction.startswith("AllToAll")]
    assert len(travelled) == 4 * 2 * (3 if recompute == "full" else 2)  # there and back, in each layer and pass
    assert run(1.5).makespan > even.makespan


@pytest.mark.parametrize("name", ["bf16", "bfloat16", "torch.bfloat16", torch.bfloat16])
def test_a_dtype_may_be_that_of_torch(name):
    model, cluster = sim.transformer(**SMALL, dtype="fp32", batch=4), sim.cluster("dgx-a100", ranks=2)
    assert sim.transformer(**SMALL, dtype=name) == sim.transformer(**SMALL)
    run, plain = (sim.simulate(sim.DataParallel(), model, cluster, steps=1, dtype=one) for one in (name, "bf16"))
    assert run == plain and str(sim.MixedPrecision(name)) == str(sim.MixedPrecision("bf16"))
    assert sim.problem("digits-mlp", dtype=torch.float64).dtype == "float64"


def test_a_model_shows_itself_in_one_line():
    told = "<Model 'GPT-3 175B': 98 blocks, 174,604,259,328 parameters, batch=8>"
    assert repr(sim.model("gpt3-175b", batch=8)) == told


# ---------------------------------------------------------------- samples are whole

LINEAR = sim.Model.from_torch(torch.nn.Linear(8, 4), torch.zeros(1, 8))


@pytest.mark.parametrize("model", [LINEAR, sim.transformer(**SMALL), sim.model("resnet-50")], ids=lambda one: one.name)
@pytest.mark.parametrize(
    "strategy, parts",
    [(sim.DataParallel(), 4), (sim.Sharded(3), 4), (sim.stack(sim.Single(microbatches=2), sim.DataParallel()), 8)],
)
def test_operations_are_done_for_whole_samples(model, strategy, parts):
    """A part of a sample is nothing that a rank could compute; times may be given for it."""
    cluster, said = sim.cluster("ideal", ranks=4), f"got batch=1 for {parts} parts: give batch={parts} or more"
    with pytest.raises(ValueError, match=said):
        sim.simulate(strategy, model, cluster, steps=1)
    with pytest.raises(ValueError, match=f"got batch={parts - 1}"):
        sim.simulate(strategy, model, cluster, steps=1, batch=parts - 1)
    assert sim.simulate(strategy, model, cluster, steps=1, batch=parts).makespan > 0
    assert sim.simulate(strategy, sim.Model.of_times(), cluster, steps=1).makespan > 0


def test_ranks_that_share_a_sample_need_no_more():
    """Tensor parallelism and pipelines of one microbatch cut no batch."""
    cluster, model = sim.cluster("ideal", ranks=2), sim.transformer(**SMALL)
    for strategy in (sim.TensorParallel(), sim.Pipeline(microbatches=1)):
        assert sim.simulate(strategy, model, cluster, steps=1).batch == 1


def test_a_sweep_says_which_batches_are_too_small():
    table = sim.sweep("DataParallel", sim.model("gpt2-small"), sim.cluster("dgx-a100", ranks=4), batch=[1, 4])
    assert "give batch=4 or more" in table.error[0] and table.error[1] == "" and table.step_time.isna()[0]


def test_what_cannot_be_split_says_what_to_use_instead():
    cluster = sim.cluster("dgx-a100", ranks=2)
    with pytest.raises(ValueError, match="of ResNet-50 has none: the model is known by its totals alone; data"):
        sim.simulate(sim.TensorParallel(), sim.model("resnet-50"), cluster, steps=1)
    mixtral = sim.model("mixtral-8x7b", batch=2)
    with pytest.raises(ValueError, match="ExpertParallel split blocks, put that one last, nearest the instructions"):
        sim.simulate(sim.stack(sim.ExpertParallel(), sim.Sharded(3)), mixtral, cluster, steps=1)
    last = sim.stack(sim.Sharded(3), sim.ExpertParallel())
    assert sim.simulate(last, mixtral, cluster, steps=1, fit=False).makespan > 0
