"""The gradient noise scale and the critical batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simulator.noise_scale import GradientNoise, averaged, critical_batch, gradient_noise, steps_and_samples

positive = st.floats(0.1, 1e4)


def test_two_batches_tell_signal_and_noise_apart_d28():
    found = gradient_noise(64, 256, 4 + 1000 / 64, 4 + 1000 / 256)
    assert (found.signal, found.noise, found.scale) == pytest.approx((4, 1000, 250), rel=1e-12)


@given(signal=positive, noise=positive, small=st.integers(1, 500), more=st.integers(1, 500))
def test_the_estimate_is_exact_on_expectations_d28(signal, noise, small, more):
    large = small + more
    found = gradient_noise(small, large, signal + noise / small, signal + noise / large)
    size = (signal + noise) * large / more  # what rounding is relative to
    assert found.signal == pytest.approx(signal, abs=1e-12 * size)
    assert found.noise == pytest.approx(noise, abs=1e-11 * size * small)


def test_the_estimate_has_no_bias_d28():
    """Gradients over 4 workers of 8 samples and over all 32, drawn 4000 times; 4 standard errors."""
    draw = torch.Generator().manual_seed(3)
    true, deviation, dimensions = 0.5, 3.0, 6
    samples = true + deviation * torch.randn(4000, 4, 8, dimensions, generator=draw, dtype=torch.float64)
    workers = samples.mean(2)
    small, large = workers.square().sum(-1).mean(-1), workers.mean(1).square().sum(-1)
    found = [gradient_noise(8, 32, float(s), float(b)) for s, b in zip(small, large, strict=True)]
    for name, expected in (("signal", dimensions * true**2), ("noise", dimensions * deviation**2)):
        values = torch.tensor([getattr(one, name) for one in found], dtype=torch.float64)
        assert abs(values.mean() - expected) < 4 * values.std() / len(values) ** 0.5
    assert min(one.signal for one in found) < 0  # so that single ratios say nothing
    assert averaged(found).scale == pytest.approx(36, rel=0.1)
    naive = torch.tensor([one.noise / one.signal for one in found]).mean()
    assert abs(naive - 36) > 0.2 * 36


@given(batch=positive, critical=positive, steps=positive)
def test_steps_are_paid_for_in_samples_d27(batch, critical, steps):
    made, seen = steps_and_samples(batch, critical, steps)
    fewest = critical * steps
    assert seen == pytest.approx(made * batch, rel=1e-12)
    assert (made / steps - 1) * (seen / fewest - 1) == pytest.approx(1, rel=1e-6)
    assert critical_batch(steps, fewest) == pytest.approx(critical)


@pytest.mark.parametrize("factor, steps, samples", [(1, 2, 2), (4, 1.25, 5), (0.25, 5, 1.25)])
def test_known_points_d27(factor, steps, samples):
    assert steps_and_samples(factor * 100, 100) == pytest.approx((steps, 100 * samples))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: gradient_noise(8, 8, 1, 1), "large is a finite number, above 8; got large=8"),
        (lambda: gradient_noise(0, 8, 1, 1), "small is a finite number, above 0"),
        (lambda: GradientNoise(-1.0, 2.0).scale, "average more steps"),
        (lambda: averaged([]), "measure at least one step"),
        (lambda: steps_and_samples(0, 1), "batch is a finite number, above 0"),
        (lambda: critical_batch(0, 1), "fewest_steps is a finite number, above 0"),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
