"""Rules against torch.optim, and against what is known of delayed gradients on a quadratic."""

import subprocess
import sys
from math import pi, sin

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.rules import SGD, Adam, DelayCompensated, Momentum, Rule, StalenessAware

CASES = [
    (SGD(0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    (SGD(0.1, weight_decay=0.01), lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01)),
    (Momentum(0.1), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
    (Momentum(0.1, 0.5, nesterov=True), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.5, nesterov=True)),
    (Adam(), lambda p: torch.optim.Adam(p)),
    (Adam(0.01, (0.8, 0.99), 1e-6, 0.1), lambda p: torch.optim.AdamW(p, 0.01, (0.8, 0.99), 1e-6, 0.1)),
    (StalenessAware(Momentum(0.1)), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
    (DelayCompensated(Adam()), lambda p: torch.optim.Adam(p)),
]


@pytest.mark.parametrize("rule, reference", CASES, ids=lambda case: repr(case) if isinstance(case, Rule) else "")
def test_flat_vector_moves_like_separate_tensors(rule, reference):
    draw = torch.Generator().manual_seed(1)
    shapes = [(3, 4), (4,), (2, 3, 1)]
    separate = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]
    flat = torch.cat([tensor.reshape(-1) for tensor in separate])
    ours, theirs = rule.optimizer([flat]), reference(separate)
    for _ in range(5):
        for tensor in separate:
            tensor.grad = torch.randn(tensor.shape, generator=draw, dtype=torch.float64)
        flat.grad = torch.cat([tensor.grad.reshape(-1) for tensor in separate])
        rule.step(ours)
        theirs.step()
    torch.testing.assert_close(flat, torch.cat([t.reshape(-1) for t in separate]), rtol=1e-14, atol=0)


def delayed(rule, curvature, delay, steps, start=1.0):
    """x after ``steps`` updates with gradients ``curvature · x`` that are ``delay`` updates old."""
    x = torch.full_like(curvature, start)
    optimizer = rule.optimizer([x])
    past = [x.clone()]
    for _ in range(steps):
        since = past[max(0, len(past) - 1 - delay)]
        x.grad = curvature * since
        rule.step(optimizer, staleness=min(delay, len(past) - 1), since=since if rule.needs_past else None)
        past.append(x.clone())
    return x


def assert_limit(rule, limit, delay, steps):
    """Stable 3 % below the limit of ``lr · λ``, unstable 3 % above. The rule's lr is 1."""
    curvature = torch.tensor([0.97 * limit, 1.03 * limit], dtype=torch.float64)
    below, above = delayed(rule, curvature, delay, steps).abs().tolist()
    assert below < 0.1 and not above < 10  # far above it is no number any more


@pytest.mark.parametrize("delay, limit", [(0, 2), (1, 1), (2, 0.6180), (3, 0.4450), (4, 0.3473), (7, 0.20906)])
def test_constant_delay_is_stable_up_to_the_known_limit(delay, limit):
    assert limit == pytest.approx(2 * sin(pi / (2 * (2 * delay + 1))), rel=2e-4)
    assert_limit(SGD(1.0), limit, delay, steps=200 + 300 * delay)


@pytest.mark.parametrize("delay, limit", [(0, 3.8), (1, 0.1), (3, 0.0348), (7, 0.01575)])
def test_momentum_makes_delay_worse(delay, limit):
    assert_limit(Momentum(1.0, beta=0.9), limit, delay, steps=5000)


@pytest.mark.parametrize("delay, limit", [(0, 2), (1, 2), (2, 1.854), (3, 1.780)])
def test_staleness_aware_limit(delay, limit):
    assert_limit(StalenessAware(SGD(1.0)), limit, delay, steps=200 + 300 * delay)


@pytest.mark.parametrize("delay", [1, 7, 15, 40])
def test_staleness_aware_is_stable_below_half_pi_for_any_delay(delay):
    curvature = torch.tensor([1.5], dtype=torch.float64)
    assert delayed(StalenessAware(SGD(1.0)), curvature, delay, 200 * (delay + 1)).abs() < 0.05
    assert delayed(SGD(1.0), curvature, delay, 200).abs() > 100


@settings(max_examples=20, deadline=None)
@given(delay=st.integers(0, 9), lr=st.floats(0.01, 0.3), seed=st.integers(0, 99))
def test_true_curvature_undoes_delay(delay, lr, seed):
    draw = torch.Generator().manual_seed(seed)
    root = torch.randn(5, 5, generator=draw, dtype=torch.float64)
    hessian = root @ root.T / 5
    parts = [torch.ones(2, dtype=torch.float64), torch.ones(3, dtype=torch.float64)]
    rule = DelayCompensated(SGD(lr), curvature=lambda gradient, delta: hessian @ delta)
    optimizer, past = rule.optimizer(parts), [torch.ones(5, dtype=torch.float64)]
    sequential = past[0]
    for _ in range(30):
        since = past[max(0, len(past) - 1 - delay)]
        for part, gradient in zip(parts, (hessian @ since).split([2, 3]), strict=True):
            part.grad = gradient
        rule.step(optimizer, delay, since)
        past.append(torch.cat(parts))
        sequential = sequential - lr * hessian @ sequential
    torch.testing.assert_close(past[-1], sequential, rtol=1e-11, atol=1e-12)


def test_guessed_curvature_only_approximates():
    curvature = torch.tensor([1.0, 0.1], dtype=torch.float64)
    sequential = delayed(SGD(0.2), curvature, 0, 20)
    assert not torch.allclose(delayed(DelayCompensated(SGD(0.2)), curvature, 3, 20), sequential, rtol=1e-3)
    late = delayed(SGD(0.2), curvature, 3, 20)
    torch.testing.assert_close(delayed(DelayCompensated(SGD(0.2), strength=0), curvature, 3, 20), late)


@given(staleness=st.integers(0, 50), strength=st.floats(0, 2))
def test_wrappers_compose_in_either_order_and_leave_no_trace(staleness, strength):
    since = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64)
    results = []
    for rule in (
        StalenessAware(DelayCompensated(SGD(0.1), strength)),
        DelayCompensated(StalenessAware(SGD(0.1)), strength),
    ):
        x = since + 0.5
        x.grad = gradient = torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64)
        optimizer = rule.optimizer([x])
        rule.step(optimizer, staleness, since)
        assert rule.needs_past and x.grad is gradient and gradient.tolist() == [0.3, -0.2, 1.0]
        assert optimizer.param_groups[0]["lr"] == 0.1
        results.append(x)
    by_hand = since + 0.5 - 0.1 / (staleness + 1) * (gradient + strength * gradient**2 * 0.5)
    torch.testing.assert_close(results[0], by_hand)
    torch.testing.assert_close(results[1], by_hand)


def test_learning_rate_is_restored_after_an_error():
    x = torch.ones(3)
    x.grad = torch.ones(3)
    rule = StalenessAware(DelayCompensated(SGD(0.1)))
    optimizer = rule.optimizer([x])
    with pytest.raises(ValueError, match=r"got staleness=4 without them; give since=…"):
        rule.step(optimizer, staleness=4)
    with pytest.raises(ValueError, match="3 of them; got 2"):
        rule.step(optimizer, 4, torch.ones(2))
    assert optimizer.param_groups[0]["lr"] == 0.1 and x.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: SGD(0), "SGD: lr is a finite number, above 0; got lr=0"),
        (lambda: SGD(float("nan")), "got lr=nan"),
        (lambda: SGD(0.1, weight_decay=-1), "weight_decay is a finite number, at least 0; got weight_decay=-1"),
        (lambda: Momentum(0.1, beta=1), "got beta=1"),
        (lambda: Momentum(0.1, beta=-0.1), "0 <= beta < 1"),
        (lambda: Momentum(0.1, beta=0, nesterov=True), "give beta > 0"),
        (lambda: Adam(lr=-1), "Adam: lr is a finite number"),
        (lambda: Adam(betas=(0.9, 1.0)), r"betas\[1\]=1.0"),
        (lambda: Adam(betas=(0.9,)), "two numbers"),
        (lambda: Adam(eps=-1), "got eps=-1"),
        (lambda: StalenessAware(0.1), r"wraps a rule; got 0.1; write for instance StalenessAware\(SGD\(0.1\)\)"),
        (lambda: DelayCompensated(SGD(0.1), strength=-1), "strength is a finite number, at least 0"),
        (lambda: StalenessAware(SGD(0.1)).step(SGD(0.1).optimizer([torch.ones(1)]), -1), "from 0; got -1"),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_rules_and_problem_load_neither_torch_nor_numpy():
    loaded = "import simulator.rules, simulator.problem, simulator.problems, sys"
    code = f"{loaded}; print({{'torch', 'numpy'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
