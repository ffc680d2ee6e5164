"""Knobs are taken as they are meant or refused: numbers of arrays, contradictions, programs that never end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import numpy as np
import pytest

import simulator as sim

SHAPE = dict(layers=40, hidden=2048, heads=16, sequence=2048, vocab=32000, batch=8)
TIMES = sim.Model.of_times(blocks=2, parameters=10**6)


@pytest.mark.parametrize("kind", [np.int32, np.int16, np.uint16])
def test_whole_numbers_of_arrays_do_not_overflow(kind: type):
    """int32 overflows beyond 2·10⁹, which bytes and FLOP of small models are."""
    own = sim.transformer(**{name: kind(value) for name, value in SHAPE.items()})
    assert own == sim.transformer(**SHAPE) and type(own.batch) is int
    assert {type(part.output_bytes) for block in own.blocks for part in block.parts} <= {int, float}
    assert sim.model("gpt2-small", batch=kind(4096)) == sim.model("gpt2-small", batch=4096)
    eight = sim.cluster("dgx-a100", nodes=kind(1))
    runs = [sim.simulate(sim.DataParallel(), model, eight, steps=1) for model in (own, sim.transformer(**SHAPE))]
    assert runs[0] == runs[1] and runs[0].facts == runs[1].facts


def test_numbers_of_arrays_are_as_exact_as_ones_own():
    """0.1 in float32 is another number; what is computed with it is not rounded further."""
    third = np.float32(1 / 3)
    one, other = (
        sim.Cluster.flat(4, 1e9 * kind(third), latency=kind(third), device=sim.Device(flops=1e9 * kind(third)))
        for kind in (np.float32, float)
    )
    assert type(one.latency(0, 1)) is float and type(one.device.flops) is float
    assert one.latency(0, 1) == other.latency(0, 1)
    assert type(sim.Device(peaks={"bf16": np.float32(1e12)}).peak("bf16")) is float
    times = [sim.Model.of_times(forward=kind(third), batch=4) for kind in (np.float32, float)]
    two = sim.cluster("ideal", ranks=2)
    spans = [sim.simulate(sim.DataParallel(), model, two, steps=np.int32(3)).spans for model in times]
    assert spans[0].data == spans[1].data
    block = sim.Block(np.int32(2**30), input_bytes=np.float32(1.0))
    assert sim.Model("two", (block, block)).parameters == 2**31


@dataclass(frozen=True)
class Endless(sim.Order):
    axis = "data"
    static: bool = True
    begins: bool = False

    def program(self, me):
        if self.begins:
            next(me.steps())
        while True:
            yield sim.Load()


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize(
    "run",
    [
        lambda order: sim.simulate(order, TIMES, sim.cluster("ideal", ranks=2), steps=2),
        lambda order: sim.validate(order, 2),
        lambda order: sim.listing(order, 2),
    ],
    ids=["simulate", "validate", "listing"],
)
def test_a_program_that_never_begins_a_step_is_told_so(run, static: bool):
    with pytest.raises(sim.ProgramError, match=r"goes through me.steps\(\), .* rank 0 did not in 100,000 instructions"):
        run(Endless(static))


def test_a_program_that_never_ends_a_step_is_told_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("simulator.rewriting.MOST", 200_000)
    with pytest.raises(sim.ProgramError, match="rank 0 does not come to the end of step 0 in 300,000 instructions"):
        sim.memory(Endless(begins=True), TIMES, ranks=2)


def test_long_programs_that_move_on_are_none_of_these(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("simulator.rewriting.SOON", 10)
    monkeypatch.setattr("simulator.rewriting.MOST", 20)
    strategy = sim.ParameterServer(servers=1)
    run = sim.simulate(strategy, TIMES, sim.cluster("ideal", ranks=3), steps=50)
    assert run.steps == 50 and len(run.spans) > 500


REFUSED = {
    "shape": (lambda: sim.cluster("torus", shape=(4, 4), ranks=15), r"shape=\(4, 4\) and ranks=15"),
    "card": (lambda: sim.cluster("single-switch", ranks=4, card="ib-ndr", bandwidth=1e9), "takes a card, or a bandw"),
    "tree": (lambda: sim.cluster("fat-tree", ranks=4, card="ib-ndr", bandwidth=1e9), "takes a card, or a bandwidth"),
    "servers": (lambda: sim.cluster("edge", ranks=3, servers=5), "servers=5 of ranks=3"),
    "cards": (lambda: sim.cluster("dgx-h100", nodes=2, cards=16), "each accelerator at most, 8; got cards=16"),
    "card names": (lambda: sim.cluster("dgx-a100", nodes=1, cards="my-nic"), "cards is a whole number"),
    "speed-up": (lambda: sim.Cluster.flat(5, 1e9).slowed({3: 0.5}), "at least 1; got factor=0.5"),
    "efficiency": (lambda: sim.Device("x", efficiency=1.5), "at most 1.*got efficiency=1.5"),
    "memory": (lambda: sim.Device("x", memory=0), "above 0; got memory=0"),
    "idle": (lambda: sim.Device("x", power=100, idle=400), "idle=400 and power=100"),
    "ranks": (lambda: replace(sim.cluster("dgx-a100", nodes=1), ranks=16), "ranks=16 on a wiring of 8"),
    "kv_heads": (lambda: sim.transformer(**SHAPE, kv_heads=5), "kv_heads divides heads"),
    "more kv_heads": (lambda: sim.transformer(**SHAPE, kv_heads=32), "kv_heads divides heads"),
    "flash": (lambda: sim.transformer(**SHAPE, flash=2.0), "up to 1; got flash=2.0"),
    "ffn": (lambda: sim.transformer(**SHAPE, ffn=0), "ffn is a whole number, at least 1; got ffn=0"),
    "file": (lambda: sim.catalog.link("my-nic", "no/such.toml"), "a file that is there; got 'no/such.toml'"),
    "product": (
        lambda: sim.simulate(sim.Hybrid(tensor=8, data=2), TIMES, sim.cluster("ideal", ranks=8)),
        "a multiple of 16 ranks; got ranks=8",
    ),
    "job": (
        lambda: sim.simulate_jobs([sim.Job(sim.DataParallel(), TIMES, (1, 4))], sim.cluster("ideal", ranks=4)),
        r"from 0 to 3, each once; job 0 has \(1, 4\)",
    ),
}


@pytest.mark.parametrize("make, says", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_refused(make, says: str):
    with pytest.raises(ValueError, match=says):
        make()


def test_messages_are_short_whatever_was_given():
    with pytest.raises(ValueError, match="so ranks is their number; got 128 x 8") as error:
        sim.memory(sim.DataParallel(), TIMES, sim.cluster("dgx-a100", nodes=128))  # type: ignore[arg-type]
    assert len(str(error.value)) < 400


def test_a_kind_that_computes_nothing_is_told_which_do(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[my-gpu]\nkind = "chip"\nbf16_TFLOP_per_s = 100\nsource = "me"\n', encoding="utf-8")
    with pytest.raises(ValueError, match="'my-gpu' is a chip, none of gpu, tpu, npu, cpu: mend its kind"):
        sim.device("my-gpu", file)


def test_a_card_of_ones_own_is_a_card():
    card = sim.catalog.link("ib-ndr")
    for name in ("single-switch", "fat-tree"):
        one, other = (sim.cluster(name, ranks=4, card=card) for card in (card, "ib-ndr"))
        assert one.wiring == other.wiring


def test_a_device_of_peaks_alone_is_as_fast_as_they_say():
    """Models given in FLOP run at the share of the peak that devices reach, not as on a processor core."""
    chip = sim.Device("x", peaks={"bf16": 1e14, "fp8": 2e14})
    assert chip.flops == pytest.approx(1e14 * sim.catalog.usual_fraction()) and 0.5e14 < chip.flops < 1e14
    assert replace(chip, flops=None, efficiency=0.5).flops == 0.5e14  # type: ignore[arg-type]
    assert sim.Device(flops=3.0, peaks={"bf16": 1e14}).flops == 3.0 and sim.Device().flops == 50e9


def test_clusters_are_called_what_they_are():
    assert str(sim.cluster("dgx-a100", nodes=2, device="h100-sxm")).endswith("replaced by NVIDIA H100 SXM")
    assert str(sim.cluster("torus", ranks=8, device="h100-sxm")).endswith("replaced by NVIDIA H100 SXM")
    assert str(sim.cluster("single-switch", ranks=4, device="h100-sxm")).endswith("B/s, NVIDIA H100 SXM")
    assert "replaced" not in str(sim.cluster("dgx-a100", nodes=2))


def test_a_run_on_devices_that_nobody_named_says_so():
    small, two = sim.model("gpt2-small", batch=2), sim.cluster("single-switch", ranks=2)
    assert "give the cluster a device=" in sim.simulate(sim.DataParallel(), small, two, steps=1).notes["device"]
    named = sim.cluster("single-switch", ranks=2, device="h100-sxm")
    assert "device" not in sim.simulate(sim.DataParallel(), small, named, steps=1).notes
    assert "device" not in sim.simulate(sim.DataParallel(), TIMES, two, steps=1).notes


def test_jobs_take_the_knobs_of_a_model():
    small, chips = sim.model("gpt2-small"), sim.cluster("single-switch", ranks=2, device="h100-sxm")
    job = sim.Job(sim.DataParallel(), small, (0, 1), steps=1, batch=8, dtype="fp16", recompute="full")
    (run,) = sim.simulate_jobs([job], chips)
    alone = sim.simulate(sim.DataParallel(), small, chips, steps=1, batch=8, dtype="fp16", recompute="full", fold=False)
    assert run.makespan == pytest.approx(alone.makespan, rel=1e-9) and run.batch == 8


def test_without_failures_only_checkpoints_cost_time():
    assert sim.failures.goodput(mtbf=inf, checkpoint=10, restart=3) == 1
    assert sim.failures.goodput(mtbf=inf, checkpoint=10, restart=3, interval=90) == pytest.approx(0.9)
    near = sim.failures.goodput(mtbf=1e12, checkpoint=10, restart=3, interval=90)
    assert near == pytest.approx(0.9, rel=1e-6)


def test_learning_in_fp8_keeps_parameters_in_bf16():
    """Transformer Engine: weights and gradients 2 + 2, master copy and moments 12; FLOP are of fp8."""
    narrow, usual = (sim.model("gpt3-2.7b", batch=8, dtype=dtype) for dtype in ("fp8", "bf16"))
    states = [sim.memory(sim.Single(), model, 1)[0].peak for model in (narrow, usual)]
    assert states[0].parameters == states[1].parameters == 2 * narrow.parameters
    assert states[0].optimizer == states[1].optimizer == 12 * narrow.parameters
    chips = sim.cluster("dgx-h100", nodes=1)
    runs = [sim.simulate(sim.DataParallel(), model, chips, steps=1) for model in (narrow, usual)]
    assert runs[0].bytes_sent == runs[1].bytes_sent and runs[0].makespan < runs[1].makespan
    assert runs[0].facts.dtype == "fp8"


@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_a_tree_on_links_that_are_shared_takes_as_long_as_the_docs_say(n: int):
    """A7: a rank's children get their copies at the same time; 2L·latency + L(L+3)/2·S/bandwidth with n = 2^L."""
    model = sim.Model.of_times(blocks=1, forward=0.0, backward=0.0, parameters=25_000_000)
    flat, rounds = sim.Cluster.flat(n, 12.5e9, 10e-6), n.bit_length() - 1
    strategy = sim.stack(sim.DataParallel(bucket_bytes=1e13), sim.TreeAllReduce())
    time = sim.simulate(strategy, model, flat, steps=1).makespan
    assert time == pytest.approx(2 * rounds * 10e-6 + rounds * (rounds + 3) / 2 * 0.008, rel=1e-9)
    plain = replace(flat, algorithm="tree")
    whole = sim.simulate(sim.DataParallel(bucket_bytes=1e13), model, plain, steps=1, detail="messages").makespan
    assert whole <= time * (1 + 1e-9)
