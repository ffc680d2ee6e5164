"""Secure aggregation, clipping and noise: what a server may learn of one client."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from math import sqrt

import numpy as np
import pytest
import torch
from cases import problem
from common.federated import learn, slopes
from common.runs import apart
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import theory as fed
from simulator.strategies.local.gaussian_noise import Noised
from simulator.strategies.local.secure_aggregation import Decoded, Encoded, Masked

# ---------------------------------------------------------------- secure aggregation


@dataclass(frozen=True, eq=False)
class Eavesdropper:
    """Keeps what it is shown."""

    seen: list[torch.Tensor] = field(default_factory=list)

    def __call__(self, update: torch.Tensor) -> None:
        """Nothing is changed."""
        self.seen.append(update.clone())


@dataclass(frozen=True)
class Overheard(sim.Layer):
    """Somebody listens to all that clients send."""

    who: Eavesdropper

    def rules(self, me: sim.Rank) -> sim.Rules:
        def send(send: sim.Send):
            if me.share is not None:
                yield sim.Compute(self.who, (send.value,))
            yield send

        return {sim.Send: send}


def overhear(*layers: sim.Layer, order=None, steps: int = 2, ranks: int = 4) -> tuple[sim.Run, list[torch.Tensor]]:
    """A run, and what its clients sent."""
    who = Eavesdropper()
    run = learn(sim.stack(order or sim.FedAvg(local_steps=2), *layers, Overheard(who)), problem("mlp"), ranks, steps)
    return run, who.seen


@pytest.mark.parametrize("method", [sim.FedAvg, partial(sim.FedProx, 0.1), sim.SCAFFOLD])
def test_masks_cancel_in_the_sum(method):
    order = method(local_steps=2)
    plain, masked = (learn(s, problem("mlp"), 4, 6) for s in (order, sim.stack(order, sim.SecureAggregation())))
    assert apart(plain, masked) <= 1e-10 and masked.bytes_sent == plain.bytes_sent


def test_no_message_alone_tells_anything():
    (_, plain), (_, masked) = overhear(), overhear(sim.SecureAggregation())
    assert len(plain) == len(masked) == 3
    for clear, hidden in zip(plain, masked, strict=True):
        assert hidden.dtype == torch.int64
        uniform = hidden.double() / 2.0**63
        assert abs(float(uniform.mean())) < 4 / sqrt(3 * hidden.numel())
        assert float(uniform.pow(2).mean()) == pytest.approx(1 / 3, rel=0.15)
        assert abs(float(torch.corrcoef(torch.stack([clear, uniform]))[0, 1])) < 4 / sqrt(hidden.numel())
    coded = sum(Encoded(40)(clear) for clear in plain)
    assert torch.equal(sum(masked), coded)  # not even by rounding
    assert not torch.equal(masked[0] + masked[1], Encoded(40)(plain[0]) + Encoded(40)(plain[1]))  # two of three


def test_masks_are_new_in_every_round_and_for_every_seed():
    _, seen = overhear(sim.SecureAggregation(), steps=4)
    other, others = overhear(sim.SecureAggregation(seed=1), steps=4)
    assert len({tuple(update[:4].tolist()) for update in [*seen, *others]}) == 12
    assert apart(other, learn(sim.FedAvg(local_steps=2), problem("mlp"), 4, 4)) <= 1e-10


@settings(max_examples=25, deadline=None)
@given(
    numbers=st.lists(st.floats(-100, 100), min_size=1, max_size=5),
    clients=st.integers(2, 6),
    wide=st.booleans(),
    bits=st.integers(8, 20),
)
def test_any_numbers_survive_masking(numbers: list[float], clients: int, wide: bool, bits: int):
    update = torch.tensor(numbers, dtype=torch.float64 if wide else torch.float32)
    cohort = tuple(range(1, clients + 1))
    masks = [Masked(Encoded(bits, clients), me, cohort, (7, 0)) for me in cohort]
    total = Decoded(bits)(sum(mask(update) for mask in masks))
    assert total.dtype == update.dtype
    torch.testing.assert_close(total, clients * update, rtol=1e-6, atol=clients * 2.0**-bits)


def test_single_precision_is_masked_in_messages_of_the_same_size():
    digits = sim.problem("digits-mlp", hidden=8, batch=24)
    order = sim.FedAvg(local_steps=2)
    plain, masked = (learn(s, digits, 4, 4) for s in (order, sim.stack(order, sim.SecureAggregation())))
    assert 0 < apart(plain, masked) <= 1e-5 and plain.bytes_sent == masked.bytes_sent


def test_updates_too_large_for_the_sum_are_refused():
    with pytest.raises(ValueError, match=r"wraps around; got .* use fewer bits"):
        learn(sim.stack(sim.FedAvg(), sim.SecureAggregation(bits=52)), slopes(3, lr=1e5), 4, 2)
    with pytest.raises(ValueError, match="stay below 1024"):
        Encoded(20, clients=2)(torch.tensor([1024.0]))


# ---------------------------------------------------------------- clipping and noise


def test_what_leaves_a_client_is_clipped():
    _, plain = overhear()
    _, clipped = overhear(sim.GaussianNoise(clip=0.01, sigma=0.0))
    for before, after in zip(plain, clipped, strict=True):
        assert before.norm() > 0.01 and after.norm() == pytest.approx(0.01)
        torch.testing.assert_close(after, before * (0.01 / before.norm()))


def test_updates_within_the_clip_are_left_alone():
    free, wide = (
        learn(s, problem("mlp"), 4, 4)
        for s in (sim.FedAvg(local_steps=2), sim.stack(sim.FedAvg(local_steps=2), sim.GaussianNoise(1e3, 0.0)))
    )
    assert apart(free, wide) == 0


def test_noise_has_the_deviation_that_was_asked_for():
    draws = torch.stack([Noised(0.5, 2.0, (0, client))(torch.zeros(4000, dtype=torch.float64)) for client in range(16)])
    assert draws.std() == pytest.approx(1.0, rel=0.02) and abs(draws.mean()) < 4 / sqrt(draws.numel())
    assert draws.sum(0).std() == pytest.approx(fed.noise_of_sum(0.5, 2.0, 16), rel=0.05)
    assert abs(np.corrcoef(draws[:2].numpy())[0, 1]) < 4 / sqrt(4000)


def test_noise_is_drawn_anew_and_repeats_with_its_seed():
    noisy = [overhear(sim.GaussianNoise(1.0, 1.0, seed), steps=4) for seed in (0, 0, 1)]
    assert apart(noisy[0][0], noisy[1][0]) == 0 and apart(noisy[0][0], noisy[2][0]) > 0.1
    assert len({float(update[0]) for update in noisy[0][1]}) == 6


def test_ranks_that_are_one_client_draw_the_same():
    private = (sim.FedAvg(local_steps=2), sim.GaussianNoise(1.0, 0.1))
    what = sim.problem("digits-mlp", dtype="float64", hidden=8, batch=16)
    alone = sim.simulate(sim.stack(*private), what, sim.cluster("ideal", ranks=3), steps=4)
    whole = sim.stack(private[0], sim.DataParallel(replicas=2), private[1])
    shared = sim.simulate(whole, what, sim.cluster("ideal", ranks=6), steps=4)
    assert apart(shared, alone) < 1e-12 and not shared.notes


def test_noise_and_masks_go_together_and_in_that_order():
    order, noisy = sim.FedAvg(local_steps=2), sim.GaussianNoise(0.1, 0.5)
    layers = (noisy,), (noisy, sim.SecureAggregation())
    alone, both = (learn(sim.stack(order, *some), problem("mlp"), 4, 4) for some in layers)
    assert apart(alone, both) <= 1e-10
    with pytest.raises(ValueError, match="noise comes first"):
        sim.validate(sim.stack(order, sim.SecureAggregation(), noisy), 4)


def test_noise_works_behind_a_buffer():
    quiet, loud = (
        learn(sim.stack(sim.FedBuff(2, local_steps=1), sim.GaussianNoise(1.0, sigma)), problem("mlp"), 4, 4)
        for sigma in (0.0, 0.5)
    )
    assert apart(quiet, loud) > 0.1
