"""How long operations take: measured products and layers, and laws of the roofline."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from common.transformers import A100, GPT3, SMALL, layer
from hypothesis import given
from hypothesis import strategies as st

import simulator as sim
from simulator.cutting import Cut
from simulator.operations import gradients
from simulator.roofline import LARGE, speed
from simulator.work import Scaled, shared

# Anthony et al. 2024 (arXiv:2401.14489), EleutherAI/cookbook, sizing/results: an A100 with 40 GB.
MEASURED = [  # m, k, n, count, TFLOP/s
    (2048, 4096, 2048, 1, 193.158),
    (4096, 4096, 4096, 1, 239.130),
    (8192, 4096, 8192, 1, 251.538),
    (27648, 4096, 64, 1, 69.612),
    (27648, 4096, 128, 1, 137.873),
    (27648, 4096, 192, 1, 176.747),
    (27648, 4096, 240, 1, 212.950),
    (8192, 8192, 6144, 1, 228.497),
    (8192, 2048, 8192, 1, 216.633),
    (8192, 8192, 8192, 1, 253.989),
    (2048, 128, 2048, 64, 91.589),
    (2048, 2048, 128, 64, 134.750),
    (128, 4096, 128, 64, 69.153),
    (256, 4096, 256, 64, 143.256),
    (512, 4096, 512, 64, 209.470),
    (1024, 4096, 1024, 16, 238.997),
]
LAYERS = [  # hidden; ms of attention, of the perceptron, of all: forward, 128 heads, 4 samples of 2048 tokens
    (8192, 38.8, 36.7, 78.6),
    (9216, 45.4, 46.8, 95.5),
    (10240, 51.2, 57.0, 110.7),
    (11264, 57.2, 68.3, 128.2),
]


@pytest.mark.parametrize("m, k, n, count, tflops", MEASURED)
def test_matrix_products_are_as_fast_as_measured(m, k, n, count, tflops):
    product = sim.MatMul(m, n, k, count)
    predicted = product.flops / product.seconds(1, A100, "bf16") / 1e12
    assert predicted == pytest.approx(tflops, rel=0.1)


@pytest.mark.parametrize("hidden, attention, perceptron, whole", LAYERS)
def test_layers_are_as_fast_as_measured(hidden, attention, perceptron, whole):
    parts = layer(dict(layers=1, hidden=hidden, heads=128, sequence=2048, vocab=51200)).parts
    ms = [1e3 * part.forward.of(4, A100) for part in parts]
    assert sum(ms) == pytest.approx(whole, rel=0.02)
    assert sum(ms[1:4]) == pytest.approx(attention, rel=0.07) and ms[6] == pytest.approx(perceptron, rel=0.03)


def test_a_device_of_which_only_flops_are_known_does_so_many():
    device = sim.Device(flops=1e12)
    model = sim.transformer(**SMALL)
    for block in model.blocks:
        assert block.forward.of(3, device) == pytest.approx(3 * block.forward.flops / 1e12, rel=1e-12)
        flops = sim.Flops(block.forward.flops)
        assert flops.of(3, device) == pytest.approx(block.forward.of(3, device), rel=1e-12)


SIZES = st.integers(1, 10**5)


@given(m=SIZES, n=SIZES, k=SIZES, count=st.integers(1, 64), more=st.integers(1, 8))
def test_no_product_beats_the_roofline_and_more_work_takes_longer(m, n, k, count, more):
    product = sim.MatMul(m, n, k, count)
    seconds = product.seconds(1, A100, "bf16")
    least = max(product.flops / 312e12, 2 * (m * n + m * k + k * n) * count / 1.555e12)
    assert seconds >= least + A100.overhead
    assert product.seconds(more, A100, "bf16") >= seconds
    assert speed(A100, "bf16", m * n * count, k) <= LARGE * 0.869 * 312e12


@given(m=st.integers(1, 999), n=st.integers(1, 999), k=st.integers(1, 999))
def test_the_products_of_a_backward_pass_are_its_gradients(m, n, k):
    left, right = sim.MatMul(m, n, k).gradients()
    assert (left.m, left.n, left.k) == (m, k, n) and (right.m, right.n, right.k) == (k, n, m)
    assert (left.samples, left.tokens, left.units) == ("m", "m", "k")
    assert (right.samples, right.tokens, right.units) == ("k", "k", "n")
    assert left.flops == right.flops == 2 * m * n * k


@given(units=st.integers(1, 8), tokens=st.integers(1, 8), experts=st.integers(1, 8))
def test_what_ranks_share_adds_up(units, tokens, experts):
    work = sim.Operations((sim.MatMul(64, 32, 16, 8), sim.Stream(1000.0)))
    part = shared(work, units, tokens, experts)
    assert part.flops * units * tokens == pytest.approx(work.flops)
    assert part.of(2, A100) * units * tokens >= work.of(2, A100) * (1 - 1e-9) or experts > 1
    assert shared(sim.Flops(1e9), units, tokens).flops * units * tokens == pytest.approx(1e9)


def test_smaller_shares_are_less_efficient():
    def seconds(cut):
        parts = layer(GPT3, cut).parts
        return sum(parts[at].forward.of(1, A100) + parts[at].backward.of(1, A100) for at in (1, 2, 3, 6))

    assert 1.0 < 8 * seconds(Cut(tensor=(0, 8))) / seconds(Cut()) < 1.35


def test_times_depend_on_dtype_overhead_and_flash():
    model = dict(layers=1, hidden=2048, heads=16, sequence=2048, vocab=64)
    half, full = (layer(model, dtype=dtype).forward.of(1, A100) for dtype in ("bf16", "fp32"))
    assert full > 5 * half
    slow = replace(A100, overhead=1e-3)
    kernels = (layer(model).forward.of(1, slow) - layer(model).forward.of(1, A100)) / (1e-3 - 3e-6)
    assert kernels == pytest.approx(round(kernels)) and 10 <= kernels <= 20
    assert layer(model, flash=True).forward.of(1, A100) < half
    with pytest.raises(ValueError, match="has peaks for bf16, fp32, none for 'fp8'"):
        layer(model, dtype="fp8").forward.of(1, A100)


def test_a_backward_pass_in_halves_takes_as_long_as_in_one():
    block = layer(GPT3)
    whole, later = block.backward.of(1, A100), block.later.of(1, A100)
    assert 0.4 < later / whole < 0.5
    assert block.weight.flops == pytest.approx(24 * 2048 * 12288**2)


def test_operations_are_values():
    work = sim.Operations((sim.MatMul(4, 4, 4),), "bfloat16")
    work.of(1, A100)
    assert work == sim.Operations((sim.MatMul(4, 4, 4),)) == pickle.loads(pickle.dumps(work))
    assert hash(work) == hash(sim.Operations((sim.MatMul(4, 4, 4),)))
    assert Scaled(work, 0.5).flops == 64 and sim.Seconds(1).flops == sim.Measured(((1, 1.0),)).flops == 0
    assert len(gradients([sim.MatMul(1, 1, 1), sim.Stream(1.0)])) == 2


@pytest.mark.parametrize("mistake, match", [
    (dict(units="x"), "units is a dimension of the product, .*got units='x'"),
    (dict(skipped=1), "skipped is the share of a product .*got 1"),
    (dict(m=-1), "MatMul: m is a finite number, at least 0; got m=-1"),
])  # fmt: skip
def test_impossible_products_are_refused(mistake, match):
    with pytest.raises(ValueError, match=match):
        sim.MatMul(**{"m": 1, "n": 1, "k": 1, **mistake})
