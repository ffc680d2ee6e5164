"""Compressors: what travels is what is counted, and comes back as it was; mistakes are named."""

import subprocess
import sys
from math import ceil

import numpy as np
import pytest
import torch
from common.compressors import gaussian, sent
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
)
from simulator.compression.packing import pack, packed_bytes, unpack
from simulator.errors import DivergedError

PLAIN = [
    Identity(), FP16(), BF16(), Int8(), QSGD(1), QSGD(2), QSGD(4), QSGD(20), QSGD(127), TernGrad(), Sign(),
    Sign(scaled=False), TopK(0.01), TopK(0.3), TopK(1.0), RandomK(0.01), RandomK(0.3), RandomK(1.0), Threshold(0.7),
    PowerSGD(1), PowerSGD(2), DGC(0.1),
]  # fmt: skip
EVERY = [*PLAIN, *(ErrorFeedback(compressor) for compressor in PLAIN if compressor.takes_feedback)]

PASSING = (Identity, FP16, BF16)
SHAPES = [(0,), (1,), (7,), (8,), (9,), (), (3, 5), (40, 30), (2, 3, 4), (3, 0)]
each = pytest.mark.parametrize("compressor", EVERY, ids=repr)


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
    if isinstance(getattr(compressor, "compressor", compressor), PASSING):
        torch.testing.assert_close(sent(compressor, vector), vector, equal_nan=True, rtol=2**-8, atol=1e-7)
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
