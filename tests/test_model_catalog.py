"""Published models by name: parameters, FLOPs and activations are those published; every row has a source."""

from __future__ import annotations

import csv
from importlib.resources import files

import pytest

import simulator as sim
from simulator.models.catalogue import facts

ROWS = list(csv.DictReader(files("simulator.models").joinpath("catalogue.csv").read_text().splitlines()))
SHAPED = [row for row in ROWS if row["kind"] in ("gpt", "llama", "bert")]
RTX_3090 = sim.Device("RTX 3090", peaks={"bf16": 71e12}, bandwidth=936e9, overhead=3e-6)


def forward(model):
    return model.model_flops / 3


# ---------------------------------------------------------------- the file


def test_every_row_has_a_source_and_counts_either_flops_or_multiply_adds():
    for row in ROWS:
        assert row["source"] and row["name"] and row["per"] in ("token", "image", "clip", "sample")
        assert bool(row["forward_FLOP"]) is not bool(row["forward_MAC"])
        assert None not in row and None not in row.values()
        assert "from memory" not in row["source"] or row["unconfirmed"]


def test_every_row_tells_how_its_activations_are_known():
    for row in ROWS:
        convolutions = row["kind"] == "convolutions"
        assert row["activations"] in ("shape", "published", "estimated", "unknown")
        assert bool(row["like"]) is (convolutions and row["activations"] == "estimated")
        assert bool(row["activations_per_sample"]) is (convolutions and row["activations"] != "estimated")
    kinds = ("shape", "published", "estimated", "unknown")
    assert sorted(name for kind in kinds for name in sim.models(activations=kind)) == sorted(sim.models())
    assert sim.models("vision", "published") == sim.models("vision")
    with pytest.raises(ValueError, match="activations is one of 'shape', 'published', 'estimated', 'unknown'; got 'x'"):
        sim.models(activations="x")


def test_models_lists_every_row_of_every_family():
    assert sim.models() == [row["key"] for row in ROWS] and len(set(sim.models())) == len(ROWS) > 50
    families = ["language", "mixture of experts", "vision", "video", "recommendation"]
    assert sorted(name for family in families for name in sim.models(family)) == sorted(sim.models())
    assert all(sim.models(family) for family in families)
    with pytest.raises(ValueError, match="family is one of 'language'"):
        sim.models("audio")


@pytest.mark.parametrize("name", ["gpt3-175b", "GPT-3 175B", "GPT3 175b"])
def test_capitals_and_punctuation_do_not_matter(name):
    assert sim.model(name).name == "GPT-3 175B"


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match="no model is called 'gpt3-176b'; the names nearest to it: 'gpt3-175b'"):
        sim.model("gpt3-176b")
    with pytest.raises(ValueError, match="no model is called 7"):
        sim.model(7)


# ---------------------------------------------------------------- parameters and FLOPs


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["key"])
def test_every_model_has_its_published_parameters(row):
    model = sim.model(row["key"])
    assert model.parameters == int(row["parameters"]) and model.name == row["name"]


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("gpt2-small", 124_439_808),
        ("bert-base", 109_482_240),
        ("llama2-7b", 6_738_415_616),
        ("llama3.1-405b", 405_853_388_800),
        ("mixtral-8x7b", 46_702_792_704),
        ("deepseek-v3", 671_026_419_200),
        ("t5-11b", 11_307_321_344),
        ("resnet-50", 25_557_032),
        ("dlrm-criteo-1tb", 24_036_595_969),
    ],
)
def test_parameters_as_people_know_them(name, parameters):
    assert sim.model(name).parameters == parameters


@pytest.mark.parametrize("row", SHAPED, ids=lambda row: row["key"])
def test_transformers_have_the_flops_of_their_shape(row):
    tokens, layers, hidden = (int(row[name]) for name in ("sequence_tokens", "layers", "hidden"))
    model = sim.model(row["key"])
    found, published = forward(model) / tokens, float(row["forward_FLOP"])
    if row["experts"]:  # published as twice the active parameters: without attention's scores, but with the norms
        norms = (2 * layers + 1) * hidden + layers * (int(row["latent_queries"] or 0) + int(row["latent_keys"] or 0))
        found += 2 * norms - 2 * tokens * layers * int(row["heads"]) * sum(model.recipe.head_columns)
    pooler = 2 * hidden * hidden / tokens if row["kind"] == "bert" else 0
    assert found - pooler == pytest.approx(published, rel=1e-9)


@pytest.mark.parametrize("row", [row for row in ROWS if row not in SHAPED], ids=lambda row: row["key"])
def test_models_known_by_totals_have_these(row):
    tokens = int(row["sequence_tokens"] or 1)
    published = float(row["forward_FLOP"] or 0) + 2 * float(row["forward_MAC"] or 0)
    assert forward(sim.model(row["key"])) == pytest.approx(published * tokens, rel=1e-9)


def test_c19_multiply_adds_are_two_flops():
    """4.089 GMAC of ResNet-50 are 8.18 GFLOP, and training takes three times as many."""
    model = sim.model("resnet-50")
    assert forward(model) == pytest.approx(2 * 4.089e9, rel=1e-3)
    assert model.model_flops == pytest.approx(24.5e9, rel=2e-3)
    assert float(facts("i3d-r50-8x8")["forward_MAC"]) == 37.53e9
    assert forward(sim.model("i3d-r50-8x8")) == 2 * 37.53e9


@pytest.mark.parametrize(
    "name, millions",
    [
        ("resnet-50", 11.11),
        ("resnet-101", 16.23),
        ("resnet-152", 22.56),
        ("vgg-16", 13.56),
        ("efficientnet-b0", 6.75),
        ("efficientnet-b7", 289.9),
    ],
)
def test_c20_activations_and_twice_as_many_are_kept(name, millions):
    assert float(facts(name)["activations_per_sample"]) == pytest.approx(millions * 1e6, rel=2e-3)
    kept = sum(block.saved_bytes for block in sim.model(name).blocks)
    assert kept == pytest.approx(2 * 2 * millions * 1e6, rel=0.15)


def kept(model):
    return sum(block.saved_bytes for block in model.blocks)


def alone(name, batch):
    card = sim.cluster("dgx-a100", ranks=1)
    return sim.simulate(sim.Single(), sim.model(name), card, steps=1, batch=batch, fit=False)


@pytest.mark.parametrize("name, heads", [("t5-small", 8), ("t5-large", 16)])
def test_c5_encoders_and_decoders_keep_what_their_layers_keep(name, heads):
    """34·s·h + 5·a·s² a layer; a decoder's second attention keeps the 13·s·h of the first and its norm, and scores."""
    row = facts(name)
    s, h, half = 512, int(row["hidden"]), int(row["layers"]) // 2
    layers = 2 * half * (34 * s * h + 5 * heads * s * s) + half * (13 * s * h + 5 * heads * s * s)
    assert kept(sim.model(name)) == pytest.approx(layers + 4 * s * h + 4 * s * 32128, rel=1e-9)


def test_wide_heads_and_perceptrons_keep_more():
    """T5-11B: a layer keeps 10·s·h + 8·s·(a·d) + 4·s·f + 5·a·s² bytes; of heads and perceptrons h is only the input."""
    s, h, a, d, f = 512, 1024, 128, 128, 65536
    second = 5 * s * h + 8 * s * a * d + 5 * a * s * s
    layers = 48 * (second + 5 * s * h + 4 * s * f) + 24 * second
    assert kept(sim.model("t5-11b")) == pytest.approx(layers + 4 * s * h + 4 * s * 32128, rel=1e-9)
    assert 64 * kept(sim.model("t5-11b")) > 55e9


@pytest.mark.parametrize("name, millions", [("slow-r50-8x8", 8 * 11.11), ("c2d-r50-8x8", 8 * 5.21 + 4 * 5.89)])
def test_clips_keep_what_their_frames_would(name, millions):
    """C20, frames of 256² instead of 224²; C2D pools two frames to one after the first of ResNet-50's four stages."""
    assert kept(sim.model(name)) == pytest.approx(2 * 2 * millions * 1e6 * (256 / 224) ** 2, rel=0.3)


def test_x3d_is_like_networks_of_separable_convolutions():
    """Added up by hand from its layers (Feichtenhofer 2020, arXiv:2004.04730): 16 frames of 256² give 115 M numbers."""
    assert kept(sim.model("x3d-m")) == pytest.approx(2 * 2 * 115e6, rel=0.1)


@pytest.mark.parametrize("name", sim.models(activations="estimated") + sim.models(activations="published"))
def test_activations_grow_with_the_batch_and_take_time_to_move(name):
    model = sim.model(name)
    held = [sim.memory(sim.Single(), model.with_batch(batch), ranks=1)[0].peak.activations for batch in (1, 4, 16)]
    assert held[0] < held[1] < held[2] and held == pytest.approx([kept(model), 4 * kept(model), 16 * kept(model)])
    assert alone(name, 16).makespan > 16 * kept(model) / 2.04e12  # bytes/s of an A100; passes move more than is kept


@pytest.mark.parametrize(
    "name, batch, least",
    [("t5-small", 64, 0.1), ("t5-11b", 8, 0.1), ("resnet-50", 256, 0.1), ("c2d-r50-8x8", 64, 0.1)]
    + [(name, 16, 0.1) for name in ("i3d-r50-8x8", "slowfast-r101-16x8", "i3d-inception-v1", "c3d")]
    + [("x3d-m", 32, 0.04)],  # like EfficientNets, it waits for memory
)
def test_utilisation_of_models_known_by_totals_is_plausible(name, batch, least):
    assert least < alone(name, batch).mfu < 0.65


def test_too_many_clips_do_not_fit():
    with pytest.raises(sim.OutOfMemoryError, match="activations"):
        card = sim.cluster("dgx-a100", ranks=1)
        sim.simulate(sim.Single(), sim.model("c2d-r50-8x8"), card, batch=65536, steps=1)


def test_where_activations_are_unknown_memory_is_of_states():
    click = sim.model("dlrm-criteo-1tb")
    assert kept(click) == sum(block.input_bytes for block in click.blocks)


def test_what_a_layer_keeps_is_as_computed_for_the_language_models():
    for name, kept in (("gpt2-small", 1_075_838_976), ("gpt3-175b", 275_414_777_856), ("bert-large", 931_135_488)):
        assert sum(block.saved_bytes for block in sim.model(name).blocks[1:-1]) == kept


@pytest.mark.parametrize(
    "name, rate",
    [
        ("resnet-50", 3730),
        ("resnet-152", 1606),
        ("vgg-16", 1729),
        ("densenet-121", 3032),
        ("efficientnet-b0", 8241),
        ("efficientnet-b7", 126),
    ],
)
def test_g13_images_per_second_where_flops_alone_are_wrong_by_eight(name, rate):
    """timm's inference rates on an RTX 3090 with mixed precision: activations are what EfficientNets wait for."""
    model = sim.model(name)
    assert 256 / sum(block.forward.of(256, RTX_3090) for block in model.blocks) == pytest.approx(rate, rel=0.45)


# ---------------------------------------------------------------- in use


@pytest.mark.parametrize(
    "name", ["gpt2-small", "bert-base", "t5-small", "mixtral-8x7b", "resnet-50", "x3d-m", "dlrm-criteo-1tb"]
)
def test_models_of_every_family_train(name):
    chip = sim.Device("chip", peaks={"bf16": 300e12, "fp32": 20e12}, bandwidth=2e12, overhead=3e-6)
    model, cluster = sim.model(name, batch=8), sim.Cluster.flat(4, 25e9, 1e-6, chip)
    run = sim.simulate(sim.DataParallel(), model, cluster, steps=1, fit=False)
    one = sim.Cluster.flat(1, 25e9, 1e-6, chip)
    alone = sim.simulate(sim.Single(), model, one, steps=1, fit=False)
    assert run.makespan > 2 * 3 / 4 * 2 * model.parameters / 25e9  # its gradients go round
    assert alone.makespan > 8 * model.model_flops / 300e12
    full = sim.with_knobs(model, recompute="full")
    assert sim.simulate(sim.Single(), full, one, steps=1, fit=False).makespan > alone.makespan
    wide = sim.with_knobs(model, dtype="fp32", batch=16)
    assert wide.parameter_bytes == 4 and wide.batch == 16 and wide.parameters == model.parameters
    assert wide.blocks[1].input_bytes == 2 * model.blocks[1].input_bytes


def test_knobs_that_a_model_cannot_have_are_refused():
    with pytest.raises(ValueError, match="ResNet-50 is known by its totals alone"):
        sim.with_knobs(sim.model("resnet-50"), recompute="selective")
    with pytest.raises(ValueError, match="recompute is one of 'none', 'selective', 'full'"):
        sim.model("gpt2-small", recompute="all")
    times = sim.Model.of_times(blocks=2, activation_bytes=10)
    with pytest.raises(ValueError, match="belong to one dtype"):
        sim.with_knobs(times, dtype="bf16")
    with pytest.raises(ValueError, match="use 'full'"):
        sim.with_knobs(times, recompute="selective")
    with pytest.raises(ValueError, match="not known any more"):
        sim.with_knobs(sim.with_knobs(times, recompute="full"), recompute="none")


def test_a_model_given_by_its_times_can_recompute():
    times = sim.with_knobs(sim.Model.of_times(blocks=2, forward=1.0, backward=2.0), recompute="full")
    ideal = sim.cluster("ideal", ranks=1)
    assert sim.simulate(sim.Single(), times, ideal, steps=1).makespan == 8.0
