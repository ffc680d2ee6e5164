"""Rules for large batches, clipping, loss scaling and groups: against plain references and against torch."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.rules import (
    LAMB,
    LARS,
    SGD,
    Adam,
    Clipped,
    DelayCompensated,
    FixedScale,
    Groups,
    LossScale,
    Momentum,
    Rule,
    Scaled,
    Scheduled,
    StalenessAware,
    alarm,
    clip_factor,
)
from simulator.schedules import Warmup

SHAPES = {"0.weight": (3, 4), "0.bias": (3,), "2.weight": (2, 3), "2.bias": (2,)}


def draws(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(seed: int = 1) -> dict[str, torch.Tensor]:
    """Parameters by name, in double precision."""
    draw = draws(seed)
    return {name: torch.randn(shape, generator=draw, dtype=torch.float64) for name, shape in SHAPES.items()}


def gradient(step: int) -> dict[str, torch.Tensor]:
    return model(seed=100 + step)


def trained(rule: Rule, steps: int = 5, scale: float = 1.0) -> dict[str, torch.Tensor]:
    """The parameters after some updates, each tensor by itself."""
    parameters = model()
    optimizer = rule.optimizer(list(parameters.items()))
    for step in range(steps):
        for name, grad in gradient(step).items():
            parameters[name].grad = grad * scale
        rule.step(optimizer)
    return parameters


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], rtol: float = 1e-12) -> None:
    for name in SHAPES:
        torch.testing.assert_close(a[name].detach(), b[name].detach(), rtol=rtol, atol=1e-14)


# ---------------------------------------------------------------- LARS and LAMB


def plain_lars(rate: float, momentum: float, trust: float, decay: float) -> dict[str, torch.Tensor]:
    """The formulas of You et al. 2017 with a constant rate, the rate inside the velocity as they write it."""
    parameters, velocity = model(), dict.fromkeys(SHAPES, 0.0)
    for step in range(5):
        for name, g in gradient(step).items():
            w = parameters[name]
            local = trust * w.norm() / (g.norm() + decay * w.norm())
            velocity[name] = momentum * velocity[name] + rate * local * (g + decay * w)
            parameters[name] = w - velocity[name]
    return parameters


def plain_lamb(rate: float, b1: float, b2: float, eps: float, decay: float) -> dict[str, torch.Tensor]:
    """Algorithm 2 of You et al. 2020, with φ(z) = z."""
    parameters, m, v = model(), dict.fromkeys(SHAPES, 0.0), dict.fromkeys(SHAPES, 0.0)
    for step in range(5):
        for name, g in gradient(step).items():
            w = parameters[name]
            m[name], v[name] = b1 * m[name] + (1 - b1) * g, b2 * v[name] + (1 - b2) * g * g
            r = (m[name] / (1 - b1 ** (step + 1))) / ((v[name] / (1 - b2 ** (step + 1))) ** 0.5 + eps)
            u = r + decay * w
            parameters[name] = w - rate * w.norm() / u.norm() * u
    return parameters


@pytest.mark.parametrize("momentum, trust, decay", [(0.9, 0.001, 0.0), (0.5, 0.1, 0.01), (0.0, 0.02, 1.0)])
def test_lars_is_the_papers(momentum, trust, decay):
    assert_same(trained(LARS(2.0, momentum, trust, decay)), plain_lars(2.0, momentum, trust, decay))


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_lamb_is_the_papers(decay):
    assert_same(trained(LAMB(0.01, (0.8, 0.99), 1e-6, decay)), plain_lamb(0.01, 0.8, 0.99, 1e-6, decay))


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-3, 1e3))
def test_lars_does_not_mind_the_size_of_gradients_without_weight_decay_d30(scale):
    assert_same(trained(LARS(1.0, trust=0.1), scale=scale), trained(LARS(1.0, trust=0.1)), rtol=1e-10)


def test_lars_with_weight_decay_minds_d30():
    one, other = (trained(LARS(1.0, trust=0.1, weight_decay=0.1), scale=scale) for scale in (1.0, 10.0))
    assert (one["0.weight"] - other["0.weight"]).abs().max() > 1e-3


def test_the_first_step_of_lars_is_a_share_of_the_weights_d30():
    before, after = model(), trained(LARS(1.0, trust=0.01), steps=1)
    for name in SHAPES:
        assert (after[name] - before[name]).norm() == pytest.approx(0.01 * float(before[name].norm()), rel=1e-12)


def test_every_step_of_lamb_is_a_share_of_the_weights():
    for steps in (1, 4):
        before, after = trained(LAMB(0.01), steps - 1), trained(LAMB(0.01), steps)
        for name in SHAPES:
            assert (after[name] - before[name]).norm() == pytest.approx(0.01 * float(before[name].norm()), rel=1e-12)


@pytest.mark.parametrize(
    "rule, plain", [(LARS(0.1), Momentum(0.1)), (LAMB(0.1), Adam(0.1, eps=1e-6))], ids=["lars", "lamb"]
)
def test_weights_of_zero_move_as_without_layers(rule, plain):
    moved = []
    for one in (rule, plain):
        zeros = torch.zeros(3, dtype=torch.float64)
        zeros.grad = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
        one.step(one.optimizer([zeros]))
        moved.append(zeros)
    torch.testing.assert_close(moved[0], moved[1])
    still = torch.ones(3)
    still.grad = torch.zeros(3)
    rule.step(rule.optimizer([still]))
    assert still.tolist() == [1, 1, 1]


# ---------------------------------------------------------------- clipping


def clipped_by_torch(clip) -> dict[str, torch.Tensor]:
    parameters = model()
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1, momentum=0.9)
    for step in range(5):
        for name, grad in gradient(step).items():
            parameters[name].grad = grad.clone()
        clip(parameters.values())
        optimizer.step()
    return parameters


@pytest.mark.parametrize("limit", [0.5, 4.0, 1e3])
def test_clipping_is_torchs(limit):
    by_norm = clipped_by_torch(lambda parameters: torch.nn.utils.clip_grad_norm_(parameters, limit))
    by_value = clipped_by_torch(lambda parameters: torch.nn.utils.clip_grad_value_(parameters, limit))
    assert_same(trained(Clipped(Momentum(0.1), norm=limit)), by_norm)
    assert_same(trained(Clipped(Momentum(0.1), value=limit)), by_value)


@given(size=st.integers(1, 9), limit=st.floats(1e-2, 10), length=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_a_clipped_gradient_is_no_longer_than_the_limit_and_keeps_its_direction(size, limit, length, seed):
    x, lr = torch.zeros(size, dtype=torch.float64), 1.0
    g = torch.randn(size, generator=draws(seed), dtype=torch.float64)
    x.grad = own = g * (length / g.norm())
    rule = Clipped(SGD(lr), norm=limit)
    rule.step(rule.optimizer([x]))
    assert x.norm() <= limit and x.norm() == pytest.approx(min(limit, length), rel=2e-3)
    torch.testing.assert_close(-x / x.norm(), g / g.norm())
    assert x.grad is own and own.norm() == pytest.approx(length)


@given(parts=st.lists(st.floats(0, 100), min_size=1, max_size=5), limit=st.floats(0.1, 50))
def test_squares_of_pieces_add_up_to_one_factor(parts, limit):
    pieces = [torch.tensor([part], dtype=torch.float64) for part in parts]
    together = torch.cat(pieces)
    factor = clip_factor(sum(float(piece.square().sum()) for piece in pieces), limit)
    torch.nn.utils.clip_grads_with_norm_(
        [leaf := torch.nn.Parameter(torch.zeros_like(together))], limit, together.norm()
    )  # no gradient yet: nothing happens
    leaf.grad = together.clone()
    torch.nn.utils.clip_grads_with_norm_([leaf], limit, together.norm())
    torch.testing.assert_close(together * factor, leaf.grad, rtol=1e-12, atol=1e-14)


def test_a_norm_that_is_no_number_shows():
    assert math.isnan(clip_factor(math.nan, 1.0)) and clip_factor(math.inf, 1.0) == 0
    assert clip_factor(torch.tensor(math.nan), 1.0).isnan()


# ---------------------------------------------------------------- loss scaling


@pytest.mark.parametrize("rule", [Momentum(0.1), Adam(0.01), LAMB(0.01), Clipped(SGD(0.1), norm=1.0)], ids=repr)
@pytest.mark.parametrize("scale", [LossScale(), LossScale(1024.0, interval=1000), FixedScale(0.25)], ids=repr)
def test_a_scale_changes_no_digit(rule, scale):
    scaled = trained(Scaled(rule, scale), scale=Scaled(rule, scale).loss_scale())
    for name, tensor in trained(rule).items():
        assert torch.equal(scaled[name], tensor)


@settings(max_examples=30, deadline=None)
@given(overflows=st.lists(st.booleans(), min_size=1, max_size=30), interval=st.integers(1, 4))
def test_the_scale_moves_as_torchs_does(overflows, interval):
    rule = Scaled(SGD(0.1), LossScale(1024.0, interval=interval))
    x = torch.zeros(2)
    optimizer, reference = rule.optimizer([x]), torch.amp.GradScaler("cpu", 1024.0, growth_interval=interval)
    y = torch.nn.Parameter(torch.zeros(2))
    theirs = torch.optim.SGD([y], lr=0.1)
    for overflow in overflows:
        assert rule.loss_scale(optimizer) == reference.get_scale()
        reference.scale(y.sum())  # it makes its scale when it is first used
        x.grad = torch.tensor([rule.loss_scale(optimizer), math.inf if overflow else 0.0])
        y.grad = x.grad.clone()
        rule.step(optimizer)
        reference.step(theirs)
        reference.update()
    torch.testing.assert_close(x, y.detach())
    assert optimizer.param_groups[0]["skipped"] == sum(overflows)


def test_nothing_remembers_an_update_that_was_skipped():
    rule, x = Scaled(Adam(0.1), LossScale(8.0)), torch.ones(2)
    optimizer = rule.optimizer([x])
    for bad in (math.nan, math.inf, -math.inf):
        x.grad = torch.tensor([1.0, bad])
        rule.step(optimizer)
    assert x.tolist() == [1, 1] and not optimizer.state and rule.loss_scale(optimizer) == 1.0


def test_a_scale_never_becomes_infinite():
    scale, clean = LossScale(interval=1).after(2.0**1023, 0, True)
    assert (scale, clean) == (2.0**1023, 0)


def test_pieces_agree_when_they_add_each_others_alarm():
    pieces = [torch.tensor([1.0, 2.0]), torch.tensor([math.inf, 0.0]), torch.tensor([3.0])]
    told = sum(alarm(piece) for piece in pieces)
    assert all(not (piece + told).isfinite().any() for piece in pieces)
    calm = sum(alarm(piece) for piece in pieces[::2])
    assert all(torch.equal(piece + calm, piece) for piece in pieces[::2])


# ---------------------------------------------------------------- groups


def test_groups_are_as_many_optimizers():
    """In each rule's own training, what it does to its own group."""
    rules = {0: Momentum(0.1), "*.bias": Adam(0.01)}
    together = trained(Groups(rules, default=LARS(1.0, trust=0.1)))
    of = {"0.weight": rules[0], "0.bias": rules[0], "2.bias": rules["*.bias"], "2.weight": LARS(1.0, trust=0.1)}
    for name, rule in of.items():
        torch.testing.assert_close(together[name], trained(rule)[name], rtol=0, atol=0)


def test_equal_groups_are_one():
    assert_same(trained(Groups({0: Adam(), "*.bias": Adam()}, default=Adam())), trained(Adam()), rtol=0)


def test_a_norm_is_that_of_the_group():
    parts = trained(Groups({0: Clipped(SGD(0.1), norm=0.5)}, default=SGD(0.1)), steps=1)
    start, grad = model(), gradient(0)
    mine = torch.cat([grad["0.weight"].reshape(-1), grad["0.bias"]])
    moved = torch.cat([(start[name] - parts[name]).reshape(-1) for name in ("0.weight", "0.bias")])
    torch.testing.assert_close(moved, 0.1 * mine * clip_factor(float(mine.square().sum()), 0.5))
    torch.testing.assert_close(start["2.weight"] - parts["2.weight"], 0.1 * grad["2.weight"])


MEMORIES: list[Rule] = [
    Adam(0.01),
    LARS(1.0, trust=0.1),
    LAMB(0.01),
    Scheduled(Momentum(0.1), Warmup(4)),
    Scaled(Momentum(0.1), LossScale(1.0, interval=2)),
    Groups({"*.bias": Scheduled(Adam(0.01), Warmup(4))}, default=Momentum(0.1)),
    Groups({2: Groups({"*.bias": LAMB(0.1)}, default=Momentum(0.1))}, default=Adam(0.1)),
    Scheduled(Groups({"*.bias": SGD(0.1)}, default=LAMB(0.1)), Warmup(4)),
]


@pytest.mark.parametrize("rule", MEMORIES, ids=lambda rule: type(rule).__name__)
def test_a_checkpoint_of_the_optimizer_holds_all_that_a_rule_remembers(rule):
    def steps(parameters, optimizer, which):
        for step in which:
            for name, grad in gradient(step).items():
                parameters[name].grad = grad
            rule.step(optimizer)

    one = model()
    whole = rule.optimizer(list(one.items()))
    steps(one, whole, range(3))
    two = {name: tensor.clone() for name, tensor in one.items()}
    restored = rule.optimizer(list(two.items()))
    restored.load_state_dict(deepcopy(whole.state_dict()))
    steps(one, whole, range(3, 6))
    steps(two, restored, range(3, 6))
    assert_same(one, two, rtol=0)
    forgetful = {name: tensor.clone() for name, tensor in one.items()}
    steps(forgetful, rule.optimizer(list(forgetful.items())), [6])
    steps(one, whole, [6])
    assert any(not torch.equal(one[name], forgetful[name]) for name in SHAPES)


@pytest.mark.parametrize("inside", [True, False])
def test_old_parameters_find_their_group(inside):
    """Groups change the order of parameters; the past is laid out as the model is."""
    plain = DelayCompensated(SGD(0.1), strength=0.5)
    grouped: Rule = DelayCompensated(Groups({"*.bias": SGD(0.1)}, default=SGD(0.1)), strength=0.5)
    if inside:
        grouped = Groups({"*.bias": plain, 2: Groups({2: plain}, default=plain)}, default=plain)
    ends = []
    for rule in (plain, grouped):
        parameters = model()
        optimizer = rule.optimizer(list(parameters.items()))
        for name, grad in gradient(0).items():
            parameters[name].grad = grad
        rule.step(optimizer, 2, torch.cat([tensor.reshape(-1) for tensor in model(seed=7).values()]))
        ends.append(parameters)
    assert_same(ends[0], ends[1])


# ---------------------------------------------------------------- what rules say of themselves


def test_wrappers_say_what_is_inside():
    layers, past = LARS(1.0), DelayCompensated(SGD(0.1))
    wrappers = (StalenessAware, Scaled, lambda rule: Scheduled(rule, Warmup(2)), lambda rule: Clipped(rule, value=1.0))
    for wrap in wrappers:
        assert not wrap(layers).elementwise and wrap(layers).per_tensor and not wrap(layers).needs_past
        assert wrap(past).elementwise and not wrap(past).per_tensor and wrap(past).needs_past
    assert not Clipped(SGD(0.1), norm=1.0).elementwise and not Clipped(SGD(0.1), norm=1.0).per_tensor
    groups = Groups({0: past}, default=SGD(0.1))
    assert groups.elementwise and groups.per_tensor and groups.needs_past
    assert not Groups({0: layers}, default=SGD(0.1)).elementwise
    assert StalenessAware(Scaled(SGD(0.1), FixedScale(8.0))).loss_scale() == 8.0 and SGD(0.1).loss_scale() == 1.0
    assert len({groups, Groups({0: past}, default=SGD(0.1))}) == 1
    assert repr(groups) == f"Groups({{0: {past}}}, default=SGD(lr=0.1, weight_decay=0.0))"


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: LARS(0), "LARS: lr is a finite number, above 0; got lr=0"),
        (lambda: LARS(1.0, momentum=1.0), "0 <= momentum < 1"),
        (lambda: LARS(1.0, trust=-1), "trust is a finite number, at least 0"),
        (lambda: LAMB(betas=(0.9,)), "LAMB: betas are two numbers"),
        (lambda: LAMB(weight_decay=-1), "weight_decay is a finite number, at least 0"),
        (lambda: Clipped(SGD(0.1)), "give either norm or value; got norm=None, value=None"),
        (lambda: Clipped(SGD(0.1), norm=1.0, value=1.0), "clip twice"),
        (lambda: Clipped(SGD(0.1), norm=0), "Clipped: norm is a finite number, above 0; got norm=0"),
        (lambda: Clipped(0.1, norm=1), "Clipped wraps a rule; got 0.1"),
        (lambda: Clipped(Scaled(SGD(0.1)), norm=1), r"write for instance Scaled\(Clipped\(…\)\)"),
        (lambda: DelayCompensated(StalenessAware(Scaled(SGD(0.1)))), "Scaled stands outside of it"),
        (lambda: Groups({0: Scaled(SGD(0.1))}, default=SGD(0.1)), "got Groups around a Scaled"),
        (lambda: Scaled(Scaled(SGD(0.1))), "got Scaled around a Scaled"),
        (lambda: Scaled(SGD(0.1), 1024.0), r"scale is LossScale\(\) or FixedScale\(1024.0\); got scale=1024.0"),
        (lambda: LossScale(backoff=1), "0 < backoff < 1; got backoff=1"),
        (lambda: LossScale(interval=0), "interval is a whole number, at least 1"),
        (lambda: FixedScale(0), "initial is a finite number, above 0"),
        (lambda: Scheduled(SGD(0.1), 0.5), "schedule is one of simulator.schedules"),
        (lambda: Scheduled(StalenessAware(Scheduled(SGD(0.1), Warmup(2))), Warmup(2)), "multiply them"),
        (lambda: Groups({0: 0.1}, default=SGD(0.1)), r"rules\[0\] is a rule, such as SGD\(0.1\); got rules\[0\]=0.1"),
        (lambda: Groups({-1: SGD(0.1)}, default=SGD(0.1)), "a whole number, at least 0; got block=-1"),
        (lambda: Groups([SGD(0.1)], default=SGD(0.1)), "rules is a dict such as"),
        (lambda: Groups({0: SGD(0.1)}, default=None), "default is a rule"),
        (lambda: Groups({}, default=SGD(0.1)).optimizer([torch.ones(1)]), "goes by the names of parameters"),
        (lambda: StalenessAware(Groups({"*.wieght": SGD(1)}, default=SGD(1))).check(list(SHAPES)), r"got '\*\.wieght'"),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
