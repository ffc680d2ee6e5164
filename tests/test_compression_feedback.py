"""Compressors with memory: error feedback, deep gradient compression, warm factors; and why signs need a memory."""

import pytest
import torch
from common.compressors import gaussian
from hypothesis import given, settings
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

INNER = [
    Identity(), FP16(), BF16(), Int8(), QSGD(1), QSGD(4), TernGrad(), Sign(), TopK(0.1), RandomK(0.1), Threshold(1.0),
    PowerSGD(1),
]  # fmt: skip
SHAPES = ((5, 4), (3,), (7, 6))  # 65 numbers


def vector(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def bare(compressor):
    """What is applied of a gradient that is compressed without memory."""

    def apply(gradient, memory, rate, seed):
        data = compressor.encode(gradient, seed)
        return rate * compressor.decode(data, len(gradient), gradient.dtype, seed), memory

    return apply


def fed(compressor):
    """What is applied of a gradient with error feedback; the memory holds learning rate times gradient."""

    def apply(gradient, memory, rate, seed):
        data, memory = ErrorFeedback(compressor).feedback(rate * gradient, memory, seed)
        return ErrorFeedback(compressor).decode(data, len(gradient), gradient.dtype, seed), memory

    return apply


SGD, SIGNSGD, EF_SIGNSGD = bare(Identity()), bare(Sign(scaled=False)), fed(Sign())


def descend(apply, start, gradient, rates, clip=float("inf")):
    """All positions of a descent from ``start``; ``gradient(x, step)`` may draw by step."""
    x, memory, path = start, torch.zeros_like(start), [start]
    for step, rate in enumerate(rates):
        applied, memory = apply(gradient(x, step), memory, rate, step)
        x = (x - applied).clamp(-clip, clip)
        path.append(x)
    return torch.stack(path)


def assert_straight(path, tolerance):
    """Every position has x1 + x2 = 2."""
    assert (path.sum(1) - 2).abs().max() <= tolerance


# ---------------------------------------------------------------- the memory


@pytest.mark.parametrize("inner", INNER, ids=repr)
def test_e14_what_was_applied_and_the_memory_are_the_gradients(inner):
    compressor, memory = ErrorFeedback(inner), torch.zeros(65, dtype=torch.float64)
    start = x = gaussian(65, seed=99)
    total = torch.zeros(65, dtype=torch.float64)
    for step in range(30):
        gradient = gaussian(65, seed=step)
        data, memory = compressor.feedback(gradient, memory, step, SHAPES)
        x = x - 0.1 * compressor.decode_shaped(data, SHAPES, torch.float64, step)
        total += gradient
        torch.testing.assert_close(x - 0.1 * memory, start - 0.1 * total, rtol=0, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), inner=st.sampled_from([TopK(0.1), Threshold(3.0), RandomK(0.5), Identity()]))
def test_e14_holds_to_the_last_bit_for_whole_numbers(seed, inner):
    """Additions of whole numbers are exact, so any difference would be one of logic."""
    draw = torch.Generator().manual_seed(seed)
    x, compressor = torch.zeros(40, dtype=torch.float64), ErrorFeedback(inner)
    total, memory = torch.zeros_like(x), torch.zeros_like(x)
    for step in range(20):
        gradient = torch.randint(-8, 9, (40,), generator=draw).double()
        data, memory = compressor.feedback(gradient, memory, step)
        x = x - compressor.decode(data, 40, torch.float64, step)
        total += gradient
        assert torch.equal(x - memory, -total)


@pytest.mark.parametrize("inner", INNER, ids=repr)
def test_the_memory_stays_bounded(inner):
    """Without dividing by 1 + ω the memory of the unbiased ones would grow without end."""
    compressor, memory = ErrorFeedback(inner), torch.zeros(65, dtype=torch.float64)
    sizes = []
    for step in range(300):
        _, memory = compressor.feedback(gaussian(65, seed=step), memory, step, SHAPES)
        sizes.append(memory.norm().item())
    assert max(sizes[150:]) < 1.5 * max(sizes[75:150]) + 1e-9 and max(sizes) < 250


def test_unbiased_ones_are_divided_and_others_are_not():
    v = gaussian(50)
    for inner in INNER:
        alone, wrapped = inner.compress(v, 3), ErrorFeedback(inner).compress(v, 3)
        assert torch.equal(alone.data, wrapped.data)
        expected = inner.decompress(alone) / (1 + inner.variance(50))
        torch.testing.assert_close(ErrorFeedback(inner).decompress(wrapped), expected, rtol=1e-15, atol=0)
        assert (inner.variance(50) > 0) == isinstance(inner, (QSGD, TernGrad, RandomK))


@pytest.mark.parametrize("inner", [Sign(), TopK(0.02), RandomK(0.1), QSGD(1), TernGrad(), Int8()], ids=repr)
def test_feedback_finds_the_minimum_of_a_noisy_quadratic(inner):
    """A quadratic with a noisy gradient: the mean of the last steps is the minimum."""
    goal = gaussian(50, seed=7)
    path = descend(fed(inner), torch.zeros(50).double(), lambda x, t: x - goal + gaussian(50, seed=t), [0.05] * 1000)
    assert (path[300:].mean(0) - goal).norm() / goal.norm() < 0.1


# ---------------------------------------------------------------- why signs need it (Karimireddy et al. 2019)


def test_e11_signs_climb_where_large_gradients_are_rare():
    """f = x/4 on [-1, 1]; the gradient is 4 once in four times, else -1: its mean sign is -1/2."""
    coin = torch.rand(2000, generator=torch.Generator().manual_seed(0))

    def gradient(x, step):
        return vector(4.0 if coin[step] < 0.25 else -1.0)

    ends = {
        name: descend(apply, vector(0.0), gradient, [0.005] * 2000, clip=1)[1200:].mean().item()
        for name, apply in {"sign": SIGNSGD, "sgd": SGD, "feedback": EF_SIGNSGD}.items()
    }
    assert ends["sign"] > 0.95  # the maximum
    assert ends["sgd"] < -0.9 and ends["feedback"] == ends["sgd"]


def test_e12_signs_never_leave_a_line_at_any_learning_rate():
    """f = |x1 + x2|/2 + |x1 - x2| from (1, 1): every sign is ±(1, -1), so x1 + x2 = 2 and f >= 1."""

    def gradient(x, step):
        side = 1.0 if x[0] >= x[1] else -1.0
        return 0.5 * torch.sign(x.sum()) * vector(1, 1) + side * vector(1, -1)

    def value(x):
        return (0.5 * x.sum(-1).abs() + (x[..., 0] - x[..., 1]).abs()).min().item()

    for rates in ([0.1] * 500, [0.1 / (t + 1) ** 0.5 for t in range(500)], [1 / (t + 1) for t in range(500)]):
        path = descend(SIGNSGD, vector(1, 1), gradient, rates)
        assert_straight(path, 1e-12)
        assert value(path) >= 1 - 1e-12
    path = descend(EF_SIGNSGD, vector(1, 1), gradient, [0.1 / (t + 1) ** 0.5 for t in range(4000)])
    assert value(path[-100:]) < 2e-3


def test_e13_signs_are_stuck_on_least_squares():
    """f = Σ (a·x)², a = ±(1, -1) + (1, 1)/2, one a at a time: the minimum is 0 at 0, signs stay at f >= 2."""
    rows = torch.tensor([[1.5, -0.5], [-0.5, 1.5]], dtype=torch.float64)
    which = torch.randint(2, (1500,), generator=torch.Generator().manual_seed(0)).tolist()

    def gradient(x, step):
        a = rows[which[step]]
        return 2 * (a @ x) * a

    def value(x):
        return (rows @ x).square().sum().item()

    stuck = descend(SIGNSGD, vector(1, 1), gradient, [0.05] * 1500)
    assert_straight(stuck, 1e-12)
    assert value(stuck[-1]) >= 2 - 1e-12
    for apply in (EF_SIGNSGD, SGD):
        assert value(descend(apply, vector(1, 1), gradient, [0.05] * 1500)[-1]) < 1e-9


@given(numbers=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_e15_in_one_dimension_scaled_signs_are_the_number(numbers):
    memory = vector(0.0)
    for number in numbers:
        data, memory = ErrorFeedback(Sign()).feedback(vector(number), memory)
        assert Sign().decode(data, 1, torch.float64).item() == number and memory.item() == 0


# ---------------------------------------------------------------- deep gradient compression


def test_dgc_loses_nothing_of_the_momentum_without_masking():
    compressor = DGC(0.05, momentum=0.9, masking=False)
    velocity = heavy = residual = torch.zeros(60, dtype=torch.float64)
    arrived, wanted = torch.zeros_like(heavy), torch.zeros_like(heavy)
    for step in range(40):
        gradient = gaussian(60, seed=step)
        heavy = 0.9 * heavy + gradient
        wanted = wanted + heavy
        data, velocity, residual = compressor.feedback(gradient, velocity, residual, step)
        arrived += compressor.at(step).decode(data, 60, torch.float64)
        torch.testing.assert_close(velocity, heavy, rtol=0, atol=0)
        torch.testing.assert_close(arrived + residual, wanted, rtol=0, atol=1e-12)


def test_dgc_forgets_the_momentum_of_what_it_sent():
    data, velocity, residual = DGC(0.5).feedback(vector(4, 1), vector(1, 1), vector(0, 2))
    assert DGC(0.5).decode(data, 2, torch.float64).tolist() == [4.9, 0]  # 0.9 · 1 + 4
    assert velocity.tolist() == [0, 1.9] and residual.tolist() == [0, 3.9]
    gradient, zeros = gaussian(30), torch.zeros(30, dtype=torch.float64)
    data, velocity, residual = DGC(1.0).feedback(gradient, zeros, zeros)
    assert torch.equal(DGC(1.0).decode(data, 30, torch.float64), gradient)
    assert not velocity.any() and not residual.any() and not zeros.any()


def test_dgc_warms_up_to_its_share():
    compressor = DGC(0.001, warmup=4)
    assert [compressor.fraction_at(t) for t in (0, 4, 100)] == [0.25, 0.001, 0.001]
    shares = [1 - compressor.fraction_at(t) for t in range(5)]
    assert shares == pytest.approx([0.75, 0.9375, 0.984375, 0.996, 0.999], abs=5e-4)  # of the paper, section 3
    assert DGC(0.5, warmup=10).fraction_at(0) == 0.5 and DGC(0.01).fraction_at(0) == 0.01
    zeros = torch.zeros(4000)
    for step in range(6):
        data, _, _ = compressor.feedback(gaussian(4000).float(), zeros, zeros, step)
        assert data.numel() == compressor.at(step).nbytes(4000, 4)


def test_dgc_finds_the_minimum_of_a_noisy_quadratic():
    goal, compressor = gaussian(50, seed=7), DGC(0.04, momentum=0.5)
    x = velocity = residual = torch.zeros(50, dtype=torch.float64)
    late = []
    for step in range(1200):
        gradient = x - goal + gaussian(50, seed=step)
        data, velocity, residual = compressor.feedback(gradient, velocity, residual, step)
        x = x - 0.02 * compressor.at(step).decode(data, 50, torch.float64)
        late.append(x)
    assert (torch.stack(late[400:]).mean(0) - goal).norm() / goal.norm() < 0.1


# ---------------------------------------------------------------- low-rank matrices


def test_a_matrix_of_low_rank_comes_back():
    matrix = gaussian(30, 2) @ gaussian(2, 20, seed=1)
    compressor = PowerSGD(2)
    torch.testing.assert_close(compressor.decompress(compressor.compress(matrix)), matrix, rtol=0, atol=1e-12)
    assert not torch.allclose(PowerSGD(1).decompress(PowerSGD(1).compress(matrix)), matrix, rtol=0, atol=1e-2)


def exchange(compressor, flats, q, shapes):
    """The exchange among ranks that hold ``flats``: the compressed mean, and the factor for the next step."""
    p = torch.stack([compressor.first(flat, q, shapes) for flat in flats]).mean(0)
    p = compressor.orthogonal(p, shapes)
    q = torch.stack([compressor.second(flat, p, shapes) for flat in flats]).mean(0)
    return compressor.rebuild(p, q, shapes), q


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_e6_factors_may_be_averaged_before_or_after(ranks):
    """Two all-reduces of factors give what one rank with the mean gradient would send."""
    compressor = PowerSGD(1)
    flats = [gaussian(65, seed=rank) for rank in range(ranks)]
    q = compressor.begin(SHAPES, torch.float64, seed=5)
    together, _ = exchange(compressor, flats, q, SHAPES)
    alone, _ = exchange(compressor, [torch.stack(flats).mean(0)], q, SHAPES)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    torch.testing.assert_close(together[20:23], torch.stack(flats).mean(0)[20:23], rtol=0, atol=1e-15)  # as it is
    data = compressor.encode_shaped(torch.stack(flats).mean(0), SHAPES, seed=5)
    torch.testing.assert_close(compressor.decode_shaped(data, SHAPES, torch.float64), alone, rtol=0, atol=1e-12)
    assert data.numel() == 8 * sum(compressor.sizes(SHAPES)) == 8 * ((5 + 4) + 3 + (7 + 6))


def test_warm_factors_find_the_best_approximation():
    """On one matrix again and again this is power iteration: it ends at the truncated SVD."""
    matrix, compressor = gaussian(12, 9), PowerSGD(2)
    u, s, v = torch.linalg.svd(matrix)
    best = u[:, :2] * s[:2] @ v[:2]
    q = compressor.begin(((12, 9),), torch.float64)
    rough = None
    for _ in range(300):
        found, q = exchange(compressor, [matrix.reshape(-1)], q, ((12, 9),))
        rough = found if rough is None else rough
    torch.testing.assert_close(found.view(12, 9), best, rtol=0, atol=1e-6)
    assert (rough.view(12, 9) - matrix).norm() > (best - matrix).norm() * 1.01


def test_half_precision_matrices_are_factored():
    matrix = (gaussian(30, 1) @ gaussian(1, 20, seed=1)).to(torch.bfloat16)
    back = PowerSGD(1).decompress(PowerSGD(1).compress(matrix))
    assert back.dtype == torch.bfloat16 and (back - matrix).norm() / matrix.norm() < 0.02
