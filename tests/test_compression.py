"""Compressors: what travels is what is counted, comes back as it was, and errs no more than the theory says."""

import subprocess
import sys
from math import ceil, sqrt

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simulator.compression import (
    BF16,
    DGC,
    FP16,
    QSGD,
    ErrorFeedback,
    Identity,
    Int8,
    PowerSGD,
    RandomK,
    Sign,
    TernGrad,
    Threshold,
    TopK,
    ratios,
)
from simulator.compression.packing import pack, packed_bytes, unpack
from simulator.errors import DivergedError

RESNET50 = 25_557_032
PLAIN = [
    Identity(), FP16(), BF16(), Int8(), QSGD(1), QSGD(2), QSGD(4), QSGD(20), QSGD(127), TernGrad(), Sign(),
    Sign(scaled=False), TopK(0.01), TopK(0.3), TopK(1.0), RandomK(0.01), RandomK(0.3), RandomK(1.0), Threshold(0.7),
    PowerSGD(1), PowerSGD(2), DGC(0.1),
]  # fmt: skip
EVERY = [*PLAIN, *(ErrorFeedback(compressor) for compressor in PLAIN if compressor.takes_feedback)]
UNBIASED = [QSGD(1), QSGD(4), QSGD(16), TernGrad(), RandomK(0.1)]
PASSING = (Identity, FP16, BF16, RandomK)
SHAPES = [(0,), (1,), (7,), (8,), (9,), (), (3, 5), (40, 30), (2, 3, 4), (3, 0)]
each = pytest.mark.parametrize("compressor", EVERY, ids=repr)


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def sent(compressor, vector, seed=0):
    return compressor.decompress(compressor.compress(vector, seed))


# ---------------------------------------------------------------- what every compressor obeys


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_shape_type_and_counted_bytes_survive(compressor, dtype):
    for shape in SHAPES:
        vector = gaussian(*shape).to(dtype)
        payload = compressor.compress(vector)
        assert payload.data.dtype == torch.uint8 and payload.data.ndim == 1 and payload.nbytes == payload.data.numel()
        back = compressor.decompress(payload)
        assert back.shape == vector.shape and back.dtype == dtype
        if not compressor.varying:
            assert payload.nbytes == compressor.nbytes_shaped((shape,), dtype.itemsize)
        if not compressor.varying and len(shape) < 2:
            assert payload.nbytes == compressor.nbytes(vector.numel(), dtype.itemsize)


@settings(max_examples=150, deadline=None)
@given(
    compressor=st.sampled_from([compressor for compressor in EVERY if not compressor.varying]),
    size=st.integers(0, 300),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**63),
)
@example(compressor=QSGD(20), size=1, dtype=torch.float32, seed=0)
def test_the_payload_is_as_long_as_told_without_tensors(compressor, size, dtype, seed):
    data = compressor.encode(gaussian(size, dtype=dtype), seed)
    assert data.numel() == compressor.nbytes(size, dtype.itemsize)
    assert compressor.decode(data, size, dtype, seed).shape == (size,)


@each
def test_every_kind_comes_back_as_it_was_with_the_same_numbers(compressor):
    tensor = gaussian(4, 6)
    expected = sent(compressor, tensor)
    array, rows = sent(compressor, tensor.numpy()), sent(compressor, tensor.tolist())
    assert isinstance(array, np.ndarray) and array.dtype == np.float64 and isinstance(rows, list)
    assert np.array_equal(array, expected.numpy()) and rows == expected.tolist()
    assert sent(compressor, tensor.numpy()[::-1, ::2]).shape == (4, 3)  # not laid out as torch wants it
    assert sent(compressor, tensor.numpy().astype(">f4")).dtype == np.float32
    assert torch.equal(sent(compressor, tensor.t()), sent(compressor, tensor.t().contiguous()))


@each
def test_the_seed_alone_decides(compressor):
    vector = gaussian(50, 40)
    first = compressor.compress(vector, seed=3)
    torch.rand(5)
    again = compressor.compress(vector, seed=3)
    assert torch.equal(first.data, again.data)
    assert torch.equal(compressor.decompress(first), compressor.decompress(again))
    inner = getattr(compressor, "compressor", compressor)
    if isinstance(inner, (QSGD, TernGrad, PowerSGD, RandomK)) and inner != RandomK(1.0):
        assert not torch.equal(first.data, compressor.compress(vector, seed=4).data)


@each
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_the_vector_stays_and_the_payload_is_a_snapshot(compressor, dtype):
    vector = gaussian(30, 20).to(dtype)
    before = vector.clone()
    payload = compressor.compress(vector)
    assert torch.equal(vector, before)
    expected = compressor.decompress(payload)
    vector.zero_()
    assert torch.equal(compressor.decompress(payload), expected)
    compressor.decompress(payload).zero_()
    assert torch.equal(compressor.decompress(payload), expected)


@each
def test_zero_is_sent_as_zero(compressor):
    zeros = torch.zeros(20, 30)
    unscaled = compressor == Sign(scaled=False)
    assert torch.equal(sent(compressor, zeros), zeros + 1 if unscaled else zeros)


@each
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_pass_or_are_refused(compressor, bad):
    vector = gaussian(40)
    vector[17] = bad
    if isinstance(getattr(compressor, "compressor", compressor), (*PASSING, PowerSGD)):
        chosen = sent(compressor, torch.ones_like(vector))[17] != 0  # by lot, in RandomK
        expected = vector[17] if chosen else torch.zeros_like(vector[17])
        torch.testing.assert_close(sent(compressor, vector)[17], expected, equal_nan=True)
    else:
        with pytest.raises(DivergedError, match="compresses finite numbers"):
            compressor.compress(vector)
    if isinstance(compressor, ErrorFeedback):
        with pytest.raises(DivergedError, match="compresses finite numbers"):
            compressor.feedback(vector, torch.zeros(40, dtype=vector.dtype))


def test_matrices_and_overflowing_norms_are_checked_too():
    with pytest.raises(DivergedError, match="PowerSGD"):
        PowerSGD(1).compress(torch.full((9, 9), float("nan")))
    with pytest.raises(DivergedError, match="QSGD"):
        QSGD(4).compress(torch.full((9,), 3e38))
    assert torch.isinf(sent(FP16(), torch.tensor([7e4]))).all()
    tiny = torch.tensor([1e-45, -1e-45, 0.0])
    assert torch.equal(sent(Int8(), tiny), tiny) and torch.equal(sent(TernGrad(), tiny), tiny)


@each
def test_a_payload_of_another_length_is_refused(compressor):
    data = compressor.encode(gaussian(20), 0)
    with pytest.raises(ValueError, match=r"the payload of .* bytes here; got"):
        compressor.decode(torch.cat([data, data.new_zeros(1)]), 20, torch.float64)


@each
def test_a_piece_of_a_longer_buffer_decodes(compressor):
    """Gathered payloads lie one after another, at any offset."""
    vector = gaussian(21)
    data = compressor.encode(vector, 1)
    joined = torch.cat([data.new_zeros(3), data, data.new_zeros(2)])
    piece = joined[3 : 3 + data.numel()]
    expected = compressor.decode(data, 21, torch.float64, 1)
    assert torch.equal(compressor.decode(piece, 21, torch.float64, 1), expected)


LINEAR = [compressor for compressor in EVERY if compressor.linear]


def test_which_are_linear():
    names = {type(getattr(compressor, "compressor", compressor)).__name__ for compressor in LINEAR}
    assert names == {"Identity", "FP16", "BF16", "RandomK"}
    assert [c for c in EVERY if (c.payload_dtype(torch.float32) is not None) != c.linear] == []


@pytest.mark.parametrize("compressor", LINEAR, ids=repr)
def test_payloads_of_linear_ones_can_be_added(compressor):
    a, b = torch.tensor([1.0, 2.0, -3.0, 0.5] * 8), torch.tensor([0.25, -1.0, 4.0, 8.0] * 8)  # exact in every type
    dtype = compressor.payload_dtype(a.dtype)
    total = compressor.encode(a, 5).view(dtype) + compressor.encode(b, 5).view(dtype)
    decoded = compressor.decode(total.view(torch.uint8), 32, a.dtype, 5)
    each_alone = [compressor.decode(compressor.encode(v, 5), 32, a.dtype, 5) for v in (a, b)]
    torch.testing.assert_close(decoded, each_alone[0] + each_alone[1], rtol=1e-6, atol=0)
    assert compressor.shared_seed == isinstance(getattr(compressor, "compressor", compressor), RandomK)


@given(bits=st.integers(1, 8), size=st.integers(0, 70), seed=st.integers(0, 1000))
def test_packed_codes_come_back(bits, size, seed):
    draw = torch.Generator().manual_seed(seed)
    codes = torch.randint(2**bits, (size,), generator=draw, dtype=torch.uint8)
    packed = pack(codes, bits)
    assert packed.numel() == packed_bytes(size, bits) == ceil(size * bits / 8)
    assert torch.equal(unpack(packed, size, bits), codes)


# ---------------------------------------------------------------- errors against theory


def errors(compressor, vector, draws):
    """Squared errors over the squared norm, and the mean of what arrives, over many seeds."""
    arrived = [sent(compressor, vector, seed) for seed in range(draws)]
    squares = torch.stack([(one - vector).square().sum() for one in arrived]) / vector.square().sum()
    return squares.mean().item(), torch.stack(arrived).mean(0)


@pytest.mark.parametrize("levels, stated", [(1, 24.42), (4, 5.34), (16, 0.672), (32, 0.169), (127, 0.0107)])
def test_e1_qsgd_errs_as_much_as_it_should(levels, stated):
    vector = gaussian(1024)
    steps = vector.abs() / vector.norm() * levels
    exact = ((steps - steps.floor()) * (steps.ceil() - steps)).sum().item() / levels**2
    found, _ = errors(QSGD(levels), vector, draws=2000 if levels < 16 else 300)
    assert found == pytest.approx(exact, rel=0.02)
    assert exact == pytest.approx(stated, rel=0.05)  # stated for another gaussian vector
    assert exact <= QSGD(levels).variance(1024) == min(1024 / levels**2, 32 / levels)
    if levels == 1:
        assert exact == pytest.approx((vector.abs().sum() / vector.norm() - 1).item(), rel=1e-12)


def test_e2_qsgd_is_sparse():
    vector = gaussian(1024)
    counts = [sent(QSGD(1), vector, seed).count_nonzero().item() for seed in range(500)]
    mean = sum(counts) / len(counts)
    assert mean == pytest.approx((vector.abs().sum() / vector.norm()).item(), rel=0.03)
    assert mean <= 1 + sqrt(1024) and mean == pytest.approx(25.4, rel=0.05)


def test_e3_terngrad_errs_by_the_maximum():
    vector = gaussian(1024)
    exact = (vector.abs().max() * vector.abs().sum() / vector.square().sum() - 1).item()
    found, _ = errors(TernGrad(), vector, draws=500)
    assert found == pytest.approx(exact, rel=0.02)
    assert exact < TernGrad().variance(1024) and exact < 24.42 / 5


def test_the_bound_of_terngrad_is_reached():
    n = 100
    worst = torch.full((n,), 1 / (1 + sqrt(n)), dtype=torch.float64)
    worst[0] = 1.0
    exact = (worst.abs().max() * worst.sum() / worst.square().sum() - 1).item()
    assert exact == pytest.approx(TernGrad().variance(n), rel=1e-12)


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 200), fraction=st.floats(0.001, 1), seed=st.integers(0, 100))
def test_e4_top_k_leaves_at_most_its_share(size, fraction, seed):
    vector = gaussian(size, seed=seed)
    k = min(size, max(1, round(fraction * size)))
    back = sent(TopK(fraction), vector)
    assert (vector - back).square().sum() <= (1 - k / size) * vector.square().sum() * (1 + 1e-12)
    assert back.count_nonzero() == k and torch.equal(back[back != 0], vector[back != 0])


def test_e4_top_one_percent_of_a_gaussian_and_random_k():
    vector = gaussian(1024)
    left = ((vector - sent(TopK(0.01), vector)).square().sum() / vector.square().sum()).item()
    assert left == pytest.approx(0.901, rel=0.03) and left <= 1 - 10 / 1024
    found, _ = errors(RandomK(0.01), vector, draws=3000)
    assert RandomK(0.01).variance(1024) == pytest.approx(101.4)
    assert found == pytest.approx(101.4, rel=0.05)


@pytest.mark.parametrize("compressor", UNBIASED, ids=repr)
def test_random_ones_are_right_on_average(compressor):
    vector = gaussian(64)
    draws = 1000
    error, mean = errors(compressor, vector, draws)
    # The squared distance of a mean of independent draws is the variance over their number.
    assert (mean - vector).square().sum() / vector.square().sum() == pytest.approx(error / draws, rel=0.6)


@settings(max_examples=40, deadline=None)
@given(compressor=st.sampled_from(UNBIASED), size=st.integers(2, 60), seed=st.integers(0, 50))
def test_the_stated_variance_is_an_upper_bound(compressor, size, seed):
    vector = gaussian(size, seed=seed) ** 3
    found, _ = errors(compressor, vector, draws=30)
    assert found <= compressor.variance(size) * 2.5 + 1e-9


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 100), power=st.integers(-30, 30), seed=st.integers(0, 50))
def test_rounding_is_as_small_as_stated(size, power, seed):
    vector = gaussian(size, seed=seed) * 2.0**power
    for compressor, share in ((BF16(), 2**-8), (Int8(), 0)):
        error = (sent(compressor, vector) - vector).abs()
        assert (error <= share * vector.abs() + (vector.abs().max() / 253.9 if not share else 0)).all()
    ordinary = vector[(vector.abs() > 6.2e-5) & (vector.abs() < 6e4)]
    assert ((sent(FP16(), ordinary) - ordinary).abs() <= 2**-11 * ordinary.abs()).all()


def test_sparse_methods_keep_double_precision():
    vector = gaussian(100) / 3
    for compressor in (TopK(0.1), Threshold(0.5), DGC(0.1)):
        back = sent(compressor, vector)
        assert 0 < back.count_nonzero() < 100 and torch.equal(back[back != 0], vector[back != 0])
    kept = sent(ErrorFeedback(RandomK(0.1)), vector)
    torch.testing.assert_close(kept[kept != 0], vector[kept != 0], rtol=1e-15, atol=0)


@given(threshold=st.floats(0, 3), size=st.integers(0, 100))
def test_thresholds_cut_what_is_below(threshold, size):
    vector = gaussian(size)
    payload = Threshold(threshold).compress(vector)
    expected = torch.where(vector.abs() >= threshold, vector, 0.0)
    assert torch.equal(Threshold(threshold).decompress(payload), expected)
    assert payload.nbytes == 12 * int((vector.abs() >= threshold).sum())


# ---------------------------------------------------------------- sizes and volumes


@pytest.mark.parametrize(
    "compressor, megabytes",
    [
        (Identity(), 102.23), (FP16(), 51.11), (BF16(), 51.11), (Int8(), 25.56), (QSGD(127), 25.56), (QSGD(1), 6.389),
        (TernGrad(), 6.389), (Sign(), 3.195), (TopK(0.01), 2.045), (TopK(0.001), 0.2045), (RandomK(0.01), 1.022),
        (DGC(0.001), 0.2045), (ErrorFeedback(Sign()), 3.195),
    ],
    ids=repr,
)  # fmt: skip
def test_e5_payloads_of_resnet_50(compressor, megabytes):
    assert compressor.nbytes(RESNET50, 4) / 1e6 == pytest.approx(megabytes, rel=3e-4)


def test_e5_closed_forms_are_the_payloads_but_for_scales():
    for compressor, bits in ((FP16(), 16), (Int8(), 8), (TernGrad(), 2), (Sign(scaled=False), 1)):
        scale = 0 if compressor in (FP16(), Sign(scaled=False)) else 4
        assert compressor.nbytes(RESNET50, 4) == ratios.quantised_bytes(RESNET50, bits) + scale
    assert abs(TopK(0.01).nbytes(RESNET50, 4) - ratios.sparse_bytes(RESNET50, 0.01)) < 8
    assert ratios.ratio(TopK(0.01), RESNET50) == pytest.approx(50, rel=1e-5)
    assert ratios.ratio(TopK(0.001), RESNET50) == pytest.approx(500, rel=1e-4)


def test_e6_power_sgd_counts_both_factors():
    for rank, times in ((1, 1418), (2, 709), (4, 354)):
        assert PowerSGD(rank).nbytes_shaped(((2048, 4608),), 4) == 4 * rank * (2048 + 4608)
        assert round(ratios.power_sgd_ratio(2048, 4608, rank)) == times
    assert PowerSGD(4).nbytes_shaped(((2048,),), 4) == PowerSGD(4).nbytes(2048, 4) == 4 * 2048
    assert PowerSGD(2).compress(gaussian(64, 8, 3, 3)).nbytes == 8 * 2 * (64 + 72)
    assert torch.equal(sent(PowerSGD(2), gaussian(50)), gaussian(50))


@pytest.mark.parametrize("compressor, ranks", [(Sign(scaled=False), 64), (TopK(0.01), 100)], ids=repr)
def test_e7_gathering_loses_beyond_twice_the_ratio(compressor, ranks):
    size = 6_400_000
    assert ratios.crossover(ratios.ratio(compressor, size)) == ranks
    dense = [2 * (n - 1) / n * size * 4 for n in (ranks - 1, ranks, ranks + 1)]
    ours = [ratios.exchange_bytes(compressor, n, size) for n in (ranks - 1, ranks, ranks + 1)]
    assert ours[0] < dense[0] and ours[1] == pytest.approx(dense[1], rel=1e-12) and ours[2] > dense[2]
    assert ratios.exchange_bytes(FP16(), 8, size) == ratios.exchange_bytes(Identity(), 8, size) / 2


def test_e9_what_deep_gradient_compression_reported():
    """97 to 0.35 MB and 488 to 0.74 MB: the second is more than the 600 times in the abstract."""
    assert round(97 / 0.35) == 277 and round(488 / 0.74) == 659
    assert 0.35e6 > DGC(0.001).nbytes(RESNET50, 4) > 0.35e6 / 2  # ours lists indices as int32


def test_e10_onebit_adam():
    assert ratios.onebit_adam_ratio(0.15) == pytest.approx(4.92, abs=0.005)
    assert [ratios.onebit_adam_ratio(warmup) for warmup in (0, 0.2, 1)] == [16, 4, 1]


def test_e16_only_exposed_time_can_be_saved():
    assert ratios.pays(1, 1, 1, exposed=3.5) and not ratios.pays(1, 1, 1, exposed=3)


# ---------------------------------------------------------------- users' mistakes


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: TopK(0), "TopK: fraction is a finite number, above 0; got fraction=0"),
        (lambda: TopK(10), "0 < fraction <= 1; got fraction=10; 0.01 sends one of a hundred"),
        (lambda: RandomK(1.5), "RandomK: fraction is the share"),
        (lambda: RandomK(float("nan")), "got fraction=nan"),
        (lambda: DGC(0), "DGC: fraction"),
        (lambda: DGC(momentum=1), "got momentum=1; 0.9 is usual"),
        (lambda: DGC(warmup=-1), "DGC: warmup is a whole number, at least 0"),
        (lambda: DGC(masking=1), "masking is True or False; got masking=1"),
        (lambda: Threshold(-1), "threshold is a finite number, at least 0"),
        (lambda: Threshold(0.1, density=2), "Threshold: density is the share"),
        (lambda: Threshold(0.1).nbytes(10, 4), r"say what to expect, for instance Threshold\(0.1, density=0.01\)"),
        (lambda: QSGD(0), "QSGD: levels is a whole number, at least 1; got levels=0"),
        (lambda: QSGD(128), "at most 127, so that a number fits into a byte; got levels=128"),
        (lambda: QSGD(2.5), "got levels=2.5"),
        (lambda: Sign(scaled="no"), "scaled is True or False"),
        (lambda: PowerSGD(0), "PowerSGD: rank is a whole number, at least 1"),
        (lambda: ErrorFeedback(0.01), r"got 0.01; write for instance ErrorFeedback\(TopK\(0.01\)\)"),
        (lambda: ErrorFeedback(ErrorFeedback(Sign())), "wraps a compressor without memory"),
        (lambda: ErrorFeedback(DGC()), "wraps a compressor without memory"),
        (lambda: ErrorFeedback(Sign(scaled=False)), "whose error shrinks with the vector"),
        (lambda: Sign().compress(torch.arange(3)), "takes floating-point numbers; got torch.int64"),
        (lambda: Sign().compress(np.arange(3)), "takes floating-point numbers; got torch.int64"),
        (lambda: Sign().compress([[1.0], [1.0, 2.0]]), "in rows of one length"),
        (lambda: Sign().compress("abc"), "a torch tensor, a numpy array or a list of floats; got str"),
        (lambda: Sign().compress([1.0], seed=-1), "seed is a whole number"),
        (lambda: Sign().decompress(b"\x00"), r"payload is what compress\(\) gave"),
        (lambda: PowerSGD(1).encode_shaped(torch.ones(5), ((2, 3),)), "hold 6 numbers; got 5; give them all"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_loads_neither_torch_nor_numpy():
    code = "import simulator.compression, sys; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
