"""Schedules against torch's, alone and around a rule; linear scaling with warm-up."""

from __future__ import annotations

from math import isclose, pi, sin

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simulator.rules import LARS, SGD, Adam, DelayCompensated, Momentum, Scheduled, StalenessAware
from simulator.schedules import Constant, Cosine, Schedule, Steps, Warmup, linear_scaled_lr, updates_in

lr_scheduler = torch.optim.lr_scheduler

PAIRS = [
    (Constant(0.3), lambda o: lr_scheduler.ConstantLR(o, factor=0.3, total_iters=1000)),
    (Warmup(5), lambda o: lr_scheduler.LinearLR(o, start_factor=1 / 5, total_iters=4)),
    (Warmup(8, start=0.25), lambda o: lr_scheduler.LinearLR(o, start_factor=0.25 + 0.75 / 8, total_iters=7)),
    (Steps((3, 7), 0.5), lambda o: lr_scheduler.MultiStepLR(o, [3, 7], gamma=0.5)),
    (
        Warmup(4).then(Steps((3, 6))),
        lambda o: lr_scheduler.SequentialLR(
            o,
            [lr_scheduler.LinearLR(o, 1 / 4, total_iters=3), lr_scheduler.MultiStepLR(o, [3, 6], gamma=0.1)],
            milestones=[4],
        ),
    ),
    (
        Warmup(3) * Steps((5,), 0.1),
        lambda o: lr_scheduler.ChainedScheduler(
            [lr_scheduler.LinearLR(o, 1 / 3, total_iters=2), lr_scheduler.MultiStepLR(o, [5], gamma=0.1)]
        ),
    ),
]


def rates_of_torch(make, updates: int) -> list[float]:
    """The learning rate of each update, where the full one is 1."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler, found = make(optimizer), []
    for _ in range(updates):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("schedule, reference", PAIRS, ids=lambda case: str(case) if isinstance(case, Schedule) else "")
def test_schedules_are_torchs(schedule, reference):
    assert [schedule(update) for update in range(14)] == pytest.approx(rates_of_torch(reference, 14), rel=1e-12)


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_the_cosine_is_torchs_until_its_end_and_then_stays(floor):
    theirs = rates_of_torch(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=10, eta_min=floor), 11)
    assert [Cosine(10, floor)(update) for update in range(11)] == pytest.approx(theirs, abs=1e-12)
    assert Cosine(10, floor)(500) == pytest.approx(floor, abs=1e-15)


@given(update=st.integers(0, 300), warm=st.integers(1, 50), steps=st.integers(1, 100), floor=st.floats(0, 1))
def test_composed_schedules_are_their_parts(update, warm, steps, floor):
    both = Warmup(warm).then(Cosine(steps, floor))
    assert both(update) == (Warmup(warm)(update) if update < warm else Cosine(steps, floor)(update - warm))
    assert floor - 1e-12 <= Cosine(steps, floor)(update) <= 1
    assert (Warmup(warm) * Cosine(steps, floor))(update) == Warmup(warm)(update) * Cosine(steps, floor)(update)
    assert both(both.steps_to_do) == both(both.steps_to_do + 1000)


# ---------------------------------------------------------------- around a rule


@pytest.mark.parametrize(
    "rule, reference",
    [
        (Momentum(0.5), lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9)),
        (Adam(0.1, weight_decay=0.1), lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1)),
    ],
    ids=repr,
)
def test_a_scheduled_rule_moves_as_torch_with_a_scheduler(rule, reference):
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(6, generator=draw, dtype=torch.float64)
    y = x.clone()
    rule = Scheduled(rule, Warmup(4).then(Steps((3, 6))))
    ours, theirs = rule.optimizer([x]), reference([y])
    scheduler = PAIRS[4][1](theirs)
    for _ in range(12):
        x.grad = y.grad = torch.randn(6, generator=draw, dtype=torch.float64)
        rule.step(ours)
        theirs.step()
        scheduler.step()
    torch.testing.assert_close(x, y, rtol=1e-13, atol=0)
    assert ours.param_groups[0]["updates"] == 12 and ours.param_groups[0]["lr"] == rule.rule.lr


@given(staleness=st.integers(0, 20), update=st.integers(0, 9))
def test_schedules_stand_inside_and_outside_what_minds_staleness(staleness, update):
    schedule, since = Warmup(5, start=0.5), torch.tensor([1.0, -2.0], dtype=torch.float64)
    inner = DelayCompensated(SGD(0.1), strength=0.5)
    for rule in (Scheduled(StalenessAware(inner), schedule), StalenessAware(Scheduled(inner, schedule))):
        x = since + 0.5
        optimizer = rule.optimizer([x])
        optimizer.param_groups[0]["updates"] = update
        x.grad = torch.tensor([0.3, 0.7], dtype=torch.float64)
        rule.step(optimizer, staleness, since)
        full = 0.3 + 0.5 * 0.3**2 * 0.5
        assert x[0].item() == pytest.approx(1.5 - 0.1 * schedule(update) / (staleness + 1) * full, rel=1e-12)


def test_an_update_that_fails_does_not_count():
    rule, x = Scheduled(DelayCompensated(SGD(0.1)), Warmup(2)), torch.ones(2)
    x.grad = torch.ones(2)
    optimizer = rule.optimizer([x])
    with pytest.raises(ValueError, match="without them"):
        rule.step(optimizer, staleness=1)
    assert optimizer.param_groups[0]["updates"] == 0 and optimizer.param_groups[0]["lr"] == 0.1


def test_warmup_keeps_a_delayed_quadratic_stable_only_while_it_lasts():
    """With one update of delay lr·λ = 1.2 is unstable: 2·sin(π/6) = 1 is the limit. Half the rate is stable."""
    assert isclose(2 * sin(pi / 6), 1.0)

    def size(schedule: Schedule) -> float:
        x = torch.ones(1, dtype=torch.float64)
        rule = Scheduled(SGD(1.2), schedule)
        optimizer, past = rule.optimizer([x]), x.clone()
        for _ in range(200):
            x.grad, past = past.clone(), x.clone()
            rule.step(optimizer)
        return abs(x.item())

    assert size(Constant(0.5)) < 1e-3 and size(Constant()) > 1e3
    late, early = (size(Constant(0.5).then(Constant(), after=after)) for after in (150, 50))
    assert late < early < size(Constant())


# ---------------------------------------------------------------- linear scaling


def test_linear_scaling_d29():
    assert linear_scaled_lr(8192) == pytest.approx(3.2) and linear_scaled_lr(256) == 0.1
    steps = updates_in(5, samples=1_281_167, batch=8192)
    warm = Scheduled(SGD(linear_scaled_lr(8192)), Warmup(steps, start=256 / 8192))
    rates = [warm.rule.lr * warm.schedule(update) for update in range(steps)]
    assert rates[0] == pytest.approx(0.1, rel=0.05) and rates[-1] == pytest.approx(3.2)
    assert steps == 782 and updates_in(0.001, samples=10, batch=10) == 1


@given(batch=st.integers(1, 10**5), k=st.integers(1, 64))
def test_k_times_the_batch_is_k_times_the_rate_d29(batch, k):
    assert linear_scaled_lr(k * batch) == pytest.approx(k * linear_scaled_lr(batch), rel=1e-12)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Warmup(0), "Warmup: steps is a whole number, at least 1; got steps=0"),
        (lambda: Cosine(10, floor=-1), "Cosine: floor is a finite number, at least 0"),
        (lambda: Steps(5), "milestones is a list of numbers of updates"),
        (lambda: Steps((1, 2.5)), "Steps: milestone is a whole number"),
        (lambda: Constant().then(Warmup(2)), "say when the next begins"),
        (lambda: Warmup(2).then(0.5), "second is a schedule"),
        (lambda: linear_scaled_lr(0), "batch is a whole number, at least 1"),
        (lambda: updates_in(0, 10, 10), "epochs is a finite number, above 0"),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_schedules_compare_by_value():
    assert len({Warmup(3) * Steps([1, 2]), Warmup(3) * Steps((1, 2))}) == 1
    assert Scheduled(LARS(1.0), Warmup(3)) == Scheduled(LARS(1.0), Warmup(3))
    with pytest.raises(TypeError):
        Warmup(3) * 0.5
