"""Predictions beside published runs: thresholds that were achieved, and the facts of the model that achieve them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import simulator as sim
from lab.truth import fsdp, megatron
from lab.truth.bigscience import bigscience
from lab.truth.errors import Errors
from lab.truth.files import FILES
from lab.truth.fitting import leave_one_out, parts
from lab.truth.gathering import GatheredAgain
from lab.truth.llama import Llama
from lab.truth.machines import Machines
from lab.truth.nccl import all_reduces
from lab.truth.others import others
from lab.truth.predicting import Predictions
from lab.truth.report import calibration, listing, overview
from lab.truth.rows import ZERO_SHOT, Knobs, Row, table
from lab.truth.scaling import scaling
from simulator.clusters.device import Device
from simulator.models import Transformer
from simulator.operations import MatMul, Operations, Stream
from simulator.roofline import speed
from simulator.strategies.schedules.placing import cuts

REPORT = Path(__file__).parent.parent / "docs" / "truth" / "published.md"
A100 = Device(peaks={"bf16": 312e12}, bandwidth=2e12, efficiency=0.87)
Rows = Callable[[], Iterator[Row]]


def named(rows: Rows, *names: str) -> list[Row]:
    """Those rows whose names begin with one of some names."""
    return [row for row in rows() if row.name.startswith(names)]


def errors(rows: Iterable[Row], knobs: Knobs = ZERO_SHOT) -> Errors:
    rows = list(rows)
    return Errors.of([row.setup.seconds(knobs) for row in rows], [row.measured for row in rows])


# ------------------------------------------------------------ thresholds: some rows here, all of them in the report


QUICK: dict[str, tuple[list[Row], float]] = {
    "korthikanti2022": (named(megatron.korthikanti2022, "GPT-22B"), 0.08),
    "megatron2021": (named(megatron.megatron2021, "GPT-1.7B", "GPT-3.6B", "GPT-7.5B", "GPT-18.4B"), 0.08),
    "vtrain_multi": (named(megatron.vtrain_multi, "h6144 l40 t8 p1", "h8192 l48 t8 p2"), 0.15),
    "llm_foundry": (named(fsdp.llm_foundry, "MPT-350m"), 0.08),
    "torchtitan": (named(fsdp.torchtitan, "Llama3.1-8B, 8 GPUs"), 0.20),
    "zero3": (named(fsdp.zero3, "GPT-174.6B"), 0.15),
    "bigscience": ([row for row in bigscience() if row.name.endswith("smallest batch")][:5], 0.12),
    "scaling": (named(scaling, "ResNet-101"), 0.10),
    "others": (named(others, "NeMo, GPT3-5B", "NeMo, GPT3-20B", "NeMo, Llama2-7B", "GPT-2.7B"), 0.10),
}


@pytest.mark.parametrize("name", QUICK)
def test_zero_shot_predictions_of_some_rows_are_within_the_threshold(name: str) -> None:
    rows, threshold = QUICK[name]
    assert len(rows) >= 2
    assert errors(rows).mean <= threshold


def test_one_constant_explains_the_rows_inside_a_machine() -> None:
    rows = list(megatron.vtrain_single())[::24]
    assert errors(rows, Knobs(dispatch=70e-6)).mean <= 0.10 < 0.25 < errors(rows).mean


THRESHOLDS = {
    ("Korthikanti et al. 2022, Table 5", "zero-shot"): 8.0,
    ("Narayanan et al. 2021, Table 1", "zero-shot"): 8.0,
    ("Narayanan et al. 2021, Table 2, PTD", "zero-shot"): 8.0,
    ("vTrain, many machines (open rows)", "zero-shot"): 15.0,
    ("vTrain, many machines (open rows)", "calibrated"): 10.0,
    ("vTrain, one machine (open rows)", "calibrated"): 9.0,
    ("MosaicML llm-foundry, MPT with FSDP", "zero-shot"): 8.0,
    ("Narayanan et al. 2021, Table 2, ZeRO-3", "zero-shot"): 15.0,
    ("torchtitan, Llama 3.1 in bf16", "zero-shot"): 20.0,
    ("BigScience on V100s", "zero-shot"): 25.0,
    ("Horovod and ColossalAI", "zero-shot"): 20.0,
    ("Well-known runs of many authors", "zero-shot"): 20.0,
}


@pytest.mark.skipif(not REPORT.exists(), reason="make truth writes the report")
@pytest.mark.parametrize(("title", "how"), THRESHOLDS)
def test_the_report_holds_the_thresholds_over_all_rows(title: str, how: str) -> None:
    pattern = rf"^\| {re.escape(title)} \| {how}[^|]*\| (\d+) \| ([\d.]+)% \|"
    found = re.search(pattern, REPORT.read_text(), re.MULTILINE)
    assert found is not None, f"no line for {title}, {how}: make truth"
    assert float(found[2]) <= THRESHOLDS[title, how]


def test_large_all_reduces_follow_from_the_tables_of_nccl() -> None:
    large = [one for one in all_reduces() if one.size >= 256 * 2**20]
    assert len(large) == 21
    assert Errors.of([one.predicted for one in large], [one.measured for one in large]).mean < 0.10


# ------------------------------------------------------------ rows


def test_every_row_of_a_file_is_run_or_left_out_for_a_reason() -> None:
    counts = {file.name: sum(1 for _ in file.rows()) for file in FILES}
    assert counts == {
        "korthikanti2022": 8,
        "megatron2021": 10,
        "megatron2021_table2": 6,
        "zero3": 6,
        "vtrain_multi": 22,
        "vtrain_single": 288,
        "llm_foundry": 139,
        "torchtitan": 6,
        "bigscience": 37,
        "scaling": 6,
        "others": 61,
    }


@pytest.mark.parametrize("rows", [megatron.korthikanti2022, megatron.megatron2021, megatron.vtrain_multi])
def test_a_setup_has_the_parameters_that_the_source_states(rows: Rows) -> None:
    files = {megatron.megatron2021: "megatron2021_table1", megatron.vtrain_multi: "vtrain_multi_a100_open"}
    if rows in files:
        for line, row in zip(table(files[rows]), rows()):
            assert row.setup.shape.model().parameters / 1e9 == pytest.approx(float(line["params_b"]), rel=0.035)
    for row in rows():
        grid = row.setup.strategy.grid(row.setup.machines().ranks)
        samples = grid.get("data", 1) * row.setup.strategy.order.pieces
        assert row.setup.batch % samples == 0


def test_each_line_has_a_source() -> None:
    for path in (Path(megatron.__file__).parent / "measured").glob("*.csv"):
        assert all(line["source"] for line in table(path.stem)), path.name


@pytest.mark.parametrize("name", ["h1024 l16 t1 p4 d1, 1 of 8", "h1024 l12 t1 p2 d4, 1 of 32"])
def test_many_microbatches_take_as_long_as_is_extrapolated_from_few(name: str) -> None:
    (row,) = [row for row in megatron.vtrain_single() if row.name == name]
    many = replace(row.setup, batch=row.setup.batch * 4, strategy=_with_microbatches(row.setup.strategy, 4))
    whole = sim.simulate(many.strategy, many.shape.model(), many.machines(), steps=1, batch=many.batch).makespan
    assert many.seconds() == pytest.approx(whole, rel=1e-9)


def _with_microbatches(strategy: Any, factor: int) -> Any:
    return replace(strategy, order=replace(strategy.order, microbatches=strategy.order.microbatches * factor))


def test_stages_scatter_what_they_send() -> None:
    """Narayanan et al. 2021, section 4.1: 1/t of the bytes pass between stages, and are gathered by the others."""
    model = sim.transformer(layers=4, hidden=256, heads=4, sequence=64, vocab=512, batch=4, dtype="fp16")
    plain = sim.stack(sim.Pipeline(microbatches=4, stages=2), sim.TensorParallel(ways=2))
    runs = [
        sim.simulate(strategy, model, sim.cluster("dgx-a100", ranks=4), steps=1)
        for strategy in (plain, megatron.megatron(tensor=2, pipeline=2, data=1, microbatches=4))
    ]
    sent = [sum(span.bytes for span in run.spans if span.instruction.startswith("Send")) for run in runs]
    assert sent[1] == sent[0] / 2 > 0


# ------------------------------------------------------------ errors and calibration


def test_errors_are_relative_to_what_was_measured() -> None:
    found = Errors.of([1.1, 0.8, 2.0], [1.0, 1.0, 2.0])
    assert (found.count, found.median, found.largest) == (3, pytest.approx(0.1), pytest.approx(0.2))
    assert (found.mean, found.bias) == (pytest.approx(0.1), pytest.approx(-0.1 / 3))
    with pytest.raises(ValueError, match="got 1 for 2"):
        Errors.of([1.0], [1.0, 2.0])


@pytest.fixture
def known() -> Predictions:
    """Eight rows of two models that a dispatch of 2 predicts exactly, and one of 1 twice too short."""
    row = named(megatron.korthikanti2022, "GPT-22B")[0]
    rows = [replace(row, model=f"model {at % 2}", measured=2.0 + at) for at in range(8)]
    found = Predictions(rows)
    found.known = {(at, Knobs(d)): rows[at].measured * d / 2 for at in range(8) for d in (1.0, 2.0)}
    return found


def test_a_fit_is_tested_on_rows_that_it_has_not_seen(known: Predictions) -> None:
    choices = [Knobs(1.0), Knobs(2.0)]
    half = parts(known, choices, every=4)
    assert (half.fitted, half.errors.count, half.knobs, half.errors.mean) == (2, 6, Knobs(2.0), 0.0)
    each = list(leave_one_out(known, choices))
    assert [fit.tested for fit in each] == ["model 0", "model 1"]
    assert all(fit.errors.count == 4 and fit.fitted <= 4 for fit in each)
    assert "| model 0 | " in calibration(each)


def test_tables_show_every_row(known: Predictions) -> None:
    text = listing(known.rows, known.of(Knobs(1.0)))
    assert text.count("-50.0%") == 8
    assert overview([("a file", "zero-shot", known.errors(Knobs(1.0)))]).count("50.0%") == 4


# ------------------------------------------------------------ the model


@given(st.integers(1, 8), st.integers(1, 40))
def test_blocks_that_stand_aside_do_not_make_stages_uneven(stages: int, layers: int) -> None:
    """Narayanan et al. 2021: stages have as many layers; the embedding goes to the first, the scores to the last."""
    asides = (True, *([False] * layers), True)
    if len(asides) < stages:
        return
    starts = cuts(asides, stages)
    assert (starts[0], starts[-1]) == (0, len(asides))
    assert all(a < b for a, b in pairwise(starts))
    if layers >= stages:
        held = [sum(not aside for aside in asides[a:b]) for a, b in pairwise(starts)]
        assert max(held) - min(held) <= 1


def test_a_device_waits_for_the_program_that_drives_it() -> None:
    """A block takes the longer of its operations and of issuing them; its parts together as long as the block."""
    shape = Transformer(layers=1, hidden=256, heads=4, sequence=128, vocab=512)
    model = shape.model()
    layer = model.blocks[1]
    assert isinstance(layer.forward, Operations)
    one = sim.Model("one layer", (layer,), batch=1)
    for dispatch in (0.0, 1e-3):
        device = replace(A100, dispatch=dispatch)
        cluster = sim.Cluster.flat(ranks=1, bandwidth=1e9, device=device)
        seconds = sim.simulate(sim.Single(), one, cluster, steps=1).makespan
        own = layer.forward.of(1, device) + layer.backward.of(1, device)  # type: ignore[union-attr]
        issued = dispatch * (layer.forward.issued + layer.backward.issued)  # type: ignore[union-attr]
        assert seconds == pytest.approx(max(own, issued))


def test_parts_of_a_block_wait_as_long_as_the_block() -> None:
    model = sim.transformer(layers=2, hidden=256, heads=4, sequence=128, vocab=512)
    device = replace(A100, dispatch=1e-3)
    alone = sim.Cluster.flat(ranks=1, bandwidth=float("inf"), device=device)
    pair = sim.Cluster.flat(ranks=2, bandwidth=float("inf"), device=device)
    whole = sim.simulate(sim.Single(), model, alone, steps=1).makespan
    shared = sim.simulate(sim.TensorParallel(), model, pair, steps=1).makespan
    assert shared == pytest.approx(whole, rel=1e-3)  # sharing makes operations shorter, not fewer


def test_operations_are_counted_as_a_program_issues_them() -> None:
    assert Operations((MatMul(2, 2, 2), Stream(8.0, kernels=3))).issued == 4


LLAMA = Transformer(2, 512, 8, 256, 1024, kv_heads=2, ffn=1536, gated=True, norm="rms", positions="rotary", bias=False)


def test_selective_recomputation_of_torchtitan_repeats_every_second_product() -> None:
    """Of the products of a layer, in order: keys, the sum of the heads, and the second half of the gate."""
    plain, again = (Llama(LLAMA, compiled=True, repeats=repeats).model() for repeats in (False, True))
    assert plain.hardware_flops == LLAMA.model().hardware_flops
    repeated = 2 * LLAMA.sequence * (512 * 128 + 512 * 512 + 512 * 1536) * LLAMA.layers
    assert again.hardware_flops - plain.hardware_flops == pytest.approx(repeated)
    assert again.parameters == plain.parameters == LLAMA.model().parameters


def test_kernels_that_nobody_fused_move_more_and_compute_as_much() -> None:
    fused, eager = (Llama(LLAMA, compiled, repeats=False).model().blocks[1].forward for compiled in (True, False))
    assert isinstance(fused, Operations) and isinstance(eager, Operations)
    moved = [sum(op.bytes for op in work.ops if isinstance(op, Stream)) for work in (fused, eager)]
    numbers = LLAMA.sequence * LLAMA.hidden
    norms, turn, gate = 2 * (34 - 4), (20 - 4) * (1 + 2 / 8), (10 - 6) * 3
    assert moved[1] - moved[0] == pytest.approx(numbers * (norms + turn + gate))
    assert eager.flops == fused.flops


def test_what_is_computed_again_is_gathered_again() -> None:
    """Rajbhandari et al. 2021 (arXiv:2104.07857): parameters pass three times, once more than without recomputation."""
    model = sim.transformer(layers=3, hidden=256, heads=4, sequence=64, vocab=512, batch=4, recompute="full")
    counts = []
    for strategy in (sim.Sharded(3, prefetch=0), sim.stack(sim.Sharded(3, prefetch=0), GatheredAgain())):
        run = sim.simulate(strategy, model, sim.cluster("dgx-a100", ranks=4), steps=2)
        counts.append(sum(span.bytes for span in run.spans if span.instruction.startswith("AllGather")))
    assert counts[1] == pytest.approx(1.5 * counts[0])


def test_machines_share_one_card() -> None:
    cluster = Machines("v100-sxm2-32gb", 4, 6.9e9, 1.5e-6).cluster(nodes=2)
    assert cluster.bandwidth(cluster.route(0, 4)[-3]) == 6.9e9 < cluster.bandwidth(cluster.route(0, 1)[0])
    assert cluster.latency(0, 4) == pytest.approx(1.5e-6, rel=0.4)


def test_a_faster_device_needs_more_outputs() -> None:
    """EleutherAI/cookbook, sizing/results/gemm_data/mm/m_sweep: m x 4096 x m on a V100, TFLOP/s."""
    v100 = sim.device("v100-sxm2-32gb")
    for m, measured in ((512, 33.4), (1024, 60.5), (2048, 69.7), (4096, 85.0), (8192, 88.5)):
        assert speed(v100, "fp16", m * m, 4096) / 0.92 / 1e12 == pytest.approx(measured, rel=0.12)
    quick = Device(peaks={"bf16": 10 * 312e12}, efficiency=0.87)
    assert speed(quick, "bf16", 1e7, 8192) / speed(A100, "bf16", 1e6, 8192) == pytest.approx(10)


def test_in_fp8_only_products_of_layers_are_in_fp8() -> None:
    """DeepSeek-AI 2024 (arXiv:2412.19437), section 3.3: attention and scores stay in bf16, as what passes between."""
    shape = Transformer(2, 4096, 32, 4096, 32000, flash=True, dropout=False)
    wide, narrow = (replace(shape, dtype=dtype).model() for dtype in ("bf16", "fp8"))
    h100 = sim.device("h100-sxm")
    layers = [model.blocks[1] for model in (wide, narrow)]
    assert layers[0].input_bytes == layers[1].input_bytes and narrow.model_flops == wide.model_flops
    mixes = [layer.parts[2].forward.of(1, h100) for layer in layers]
    scores = [model.blocks[-1].forward.of(1, h100) for model in (wide, narrow)]
    assert mixes[0] == mixes[1] and scores[0] == scores[1]
    reads, thinks = ([layer.parts[at].forward.of(1, h100) for layer in layers] for at in (1, 6))
    assert 1.5 < reads[0] / reads[1] < 1402.6 / 794.5 * 1.02 and 1.2 < thinks[0] / thinks[1] < reads[0] / reads[1]
    assert layers[1].saved_bytes < layers[0].saved_bytes  # type: ignore[operator]  # inputs of products in one byte


def test_the_share_of_the_peak_in_fp8_is_its_own() -> None:
    """stas00/ml-engineering: an H100's best product reaches 80 % of its peak in bf16, 71 % in fp8."""
    h100 = sim.device("h100-sxm")
    assert (h100.reached("bf16"), h100.reached("fp8")) == (pytest.approx(794.5 / 989), pytest.approx(1402.6 / 1979))
    assert replace(h100, efficiency_fp8=None).reached("fp8") == h100.efficiency
    with pytest.raises(ValueError, match="efficiency_fp8 is a share of the fp8 peak"):
        replace(h100, efficiency_fp8=1.1)


@pytest.mark.parametrize("share", [0.325, 0.5])
def test_attention_runs_at_the_share_of_the_peak_that_is_given(share: float) -> None:
    """Dao 2023 (arXiv:2307.08691): the first flash attention reaches 25 to 40 % of an A100's peak."""
    assert speed(A100, "bf16", 1e6, 64, share) == share * 312e12
    assert 0.5 < speed(A100, "bf16", 1e6, 64, True) / 312e12 < 0.73


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="fused"):
        MatMul(2, 2, 2, fused=0.0)
