"""Mixed precision: how far rounding leads, master copies, loss scales, and updates that are skipped by all ranks alike.

That both clocks learn the very same, and send as many bytes, the rows in tests/cases/mixed.py say.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import lab
import simulator as sim
from simulator.compression import DGC, ErrorFeedback, TopK
from simulator.rules import SGD, Adam, DelayCompensated, FixedScale, LossScale, Momentum, Rule, Scaled

STEPS, SEED = 4, 1
PIECES = {
    "single": (sim.Single(), 1),
    "data": (sim.DataParallel(), 2),
    "sharded-1": (sim.Sharded(1), 2),
    "sharded-2": (sim.Sharded(2), 3),
    "sharded-3": (sim.Sharded(3), 2),
    "1f1b": (sim.Pipeline("1f1b", microbatches=2), 2),
    "zb-h1": (sim.Pipeline("zb-h1", microbatches=2), 4),
    "tensor": (sim.TensorParallel(), 2),
    "pipeline-sharded": (sim.Hybrid(pipeline=2, data=2, zero=3, microbatches=2), 4),
    "pipeline-tensor": (sim.Hybrid(pipeline=2, tensor=2, microbatches=2), 4),
}
everywhere = pytest.mark.parametrize("name", PIECES)
TYPES = {"bf16": 2**-8, "fp16": 2**-11}
"""How far a number of this type may be from the true one, as a share of it."""


@cache
def problem(**knobs) -> sim.Problem:
    """Digits in single precision."""
    return sim.problem("digits-mlp", hidden=16, batch=24, **knobs)


def learned(strategy, ranks: int, what: sim.Problem | None = None, steps: int = STEPS) -> sim.Run:
    """What the virtual clock learns."""
    return sim.simulate(strategy, what or problem(), sim.cluster("ideal", ranks=ranks), steps=steps, seed=SEED)


def apart(a, b) -> float:
    """The largest difference of any parameter, as a share of the largest one."""
    a, b = (one.parameters if isinstance(one, sim.Run) else one for one in (a, b))
    most = max(float(np.abs(array).max()) for array in b.values())
    return max(float(np.abs(a[name] - b[name]).max()) for name in a) / most


def scales(run: sim.Run) -> dict[int, list[float]]:
    """Each rank's scale after each update."""
    return {r: [s.value for s in run.samples if (s.rank, s.name) == (r, "loss_scale")] for r in range(run.ranks)}


# ---------------------------------------------------------------- rounding


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
@everywhere
def test_it_learns_what_single_precision_does_up_to_rounding(name: str, dtype: str, accumulate: bool):
    strategy, ranks = PIECES[name]
    run = learned(sim.stack(strategy, sim.MixedPrecision(dtype, accumulate=accumulate)), ranks)
    truth = learned(strategy, ranks)
    # A unit whose input lies within rounding of zero may be on in the one and off in the other.
    kink = 20 if dtype == "bf16" else 5
    assert 0 < apart(run, truth) < kink * TYPES[dtype]
    assert apart(truth, problem().parameters(SEED)) > kink * TYPES[dtype]
    assert run.losses == pytest.approx(truth.losses, rel=4 * TYPES[dtype])
    assert all(np.array_equal(array, _rounded(array, dtype)) for array in run.parameters.values())
    assert "replicas" not in run.notes


def _rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    narrow = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    return torch.from_numpy(array).to(narrow).float().numpy()


@pytest.mark.parametrize("knobs", [dict(layers=2, hidden=16, heads=2, sequence=12, batch=8)])
@pytest.mark.parametrize("dtype", TYPES)
def test_a_transformer_too(dtype: str, knobs: dict[str, int]):
    gpt = sim.problem("tiny-gpt", **knobs)
    truth = learned(sim.Single(), 1, gpt)
    for strategy, ranks in ((sim.DataParallel(), 2), (sim.TensorParallel(), 2), (sim.ContextParallel(), 2)):
        run = learned(sim.stack(strategy, sim.MixedPrecision(dtype)), ranks, gpt)
        assert run.losses == pytest.approx(truth.losses, rel=8 * TYPES[dtype])


def test_small_steps_are_kept_in_the_master_copy():
    """Each step is a thousandth of the parameter, which bf16 would round to nothing; together they count."""
    bowl = sim.problem("quadratic", spectrum=(1.0,), noise=0.0, lr=1e-3)
    run = learned(sim.stack(sim.Single(), sim.MixedPrecision("bf16")), 1, bowl, steps=50)
    assert torch.tensor(1.0 - 1e-3).bfloat16() == 1.0
    (x,) = run.parameters["0.x"]
    assert abs(x - (1 - 1e-3) ** 50) < 2**-8 * 1.5


def test_parameters_from_elsewhere_count_and_not_their_old_masters():
    """Local SGD averages what the blocks have; a step of each on its own slice, then the mean."""
    strategy, ranks = sim.LocalSGD(period=1), 2
    truth = learned(strategy, ranks)
    run = learned(sim.stack(strategy, sim.MixedPrecision("fp16")), ranks)
    assert apart(run, truth) < 5 * TYPES["fp16"]


def test_gradients_of_many_microbatches_are_better_added_up_in_full_width():
    truth = learned(sim.Single(), 1)
    narrow, wide = (
        learned(sim.stack(sim.Single(microbatches=24), sim.MixedPrecision("bf16", accumulate=accumulate)), 1)
        for accumulate in (False, True)
    )
    assert off(wide, truth) < off(narrow, truth)


def off(run: sim.Run, truth: sim.Run) -> float:
    """The mean difference of parameters."""
    return float(np.mean([np.abs(run.parameters[name] - array).mean() for name, array in truth.parameters.items()]))


@pytest.mark.parametrize("rule", [Momentum(0.1), Adam(0.01)], ids=str)
def test_rules_remember_in_full_width(rule: Rule):
    truth = learned(sim.DataParallel(rule=rule), 2)
    run = learned(sim.stack(sim.DataParallel(rule=rule), sim.MixedPrecision("fp16")), 2)
    assert run.losses == pytest.approx(truth.losses, rel=0.01)


def test_old_parameters_come_in_full_width_too():
    rule = DelayCompensated(SGD(0.1))
    run = learned(sim.stack(sim.PipeDream(rule=rule), sim.MixedPrecision("fp16")), 2)
    assert apart(run, learned(sim.PipeDream(rule=rule), 2)) < 5 * TYPES["fp16"]


def test_what_is_only_timed_sends_as_many_bytes_as_what_learns():
    for strategy, ranks in PIECES.values():
        mixed = sim.stack(strategy, sim.MixedPrecision("bf16"))
        timed = sim.simulate(mixed, problem(), sim.cluster("ideal", ranks=ranks), steps=STEPS, learn=False)
        full = sim.simulate(strategy, problem(), sim.cluster("ideal", ranks=ranks), steps=STEPS, learn=False)
        assert timed.bytes_sent == learned(mixed, ranks).bytes_sent == [sent / 2 for sent in full.bytes_sent]


# ---------------------------------------------------------------- how long it takes

SHAPE = dict(layers=4, hidden=1024, heads=8, sequence=256, vocab=4096, batch=8)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("strategy", [sim.DataParallel(), sim.TensorParallel(), sim.Sharded(3)], ids=str)
def test_operations_are_those_of_the_type_it_computes_in(strategy: sim.Layer, dtype: str):
    """The same model given in 2 bytes a number takes the same time, of the same peak."""
    cluster = sim.cluster("dgx-a100", nodes=1)
    full, narrow = (sim.transformer(**SHAPE, dtype=name) for name in ("fp32", dtype))
    mixed = sim.simulate(sim.stack(strategy, sim.MixedPrecision(dtype)), full, cluster, steps=2)
    truth = sim.simulate(strategy, narrow, cluster, steps=2)
    assert mixed.makespan == truth.makespan < sim.simulate(strategy, full, cluster, steps=2).makespan / 3
    assert mixed.facts == truth.facts and mixed.facts.dtype == dtype
    assert mixed.mfu == truth.mfu


def test_of_modules_too():
    """Of recorded operations nobody knows which bytes are numbers: nearly all are."""
    module = nn.Sequential(nn.Linear(512, 2048), nn.GELU(), nn.Linear(2048, 512))
    full, narrow = (
        sim.Model.from_torch(module.to(dtype), torch.zeros(4096, 512, dtype=dtype))
        for dtype in (torch.float32, torch.bfloat16)
    )
    cluster, mixed = sim.cluster("dgx-a100", nodes=1), sim.stack(sim.DataParallel(), sim.MixedPrecision("bf16"))
    run, truth = sim.simulate(mixed, full, cluster, steps=2), sim.simulate(sim.DataParallel(), narrow, cluster, steps=2)
    assert run.makespan == pytest.approx(truth.makespan, rel=1e-6)
    assert run.makespan < sim.simulate(sim.DataParallel(), full, cluster, steps=2).makespan / 1.5


def test_times_that_are_given_stay():
    model = sim.Model.of_times(blocks=3)
    mixed = sim.simulate(sim.stack(sim.Single(), sim.MixedPrecision()), model, sim.cluster("ideal", ranks=1), steps=2)
    assert mixed.makespan == 2 * 3 * 3.0


# ---------------------------------------------------------------- underflow


@cache
def faint() -> sim.Problem:
    """A loss so small that its gradients round to zero in fp16, with a learning rate as large."""
    digits, small = problem(), 2.0**-26

    def loss(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return small * digits.loss(output, targets)

    return sim.Problem(digits.blocks, loss, digits.data, rule=SGD(0.1 / small))


@everywhere
def test_a_scale_recovers_gradients_that_fp16_rounds_to_zero(name: str):
    strategy, ranks = PIECES[name]
    start, truth = faint().parameters(SEED), learned(sim.Single(), 1, faint())
    lost = learned(sim.stack(strategy, sim.MixedPrecision("fp16")), ranks, faint())
    assert all(np.array_equal(lost.parameters[k], _rounded(start[k], "fp16")) for k in start)
    for scale in (FixedScale(2.0**24), LossScale(2.0**24)):
        run = learned(sim.stack(strategy, sim.MixedPrecision("fp16", scale=scale)), ranks, faint())
        assert apart(run, truth) < 5 * TYPES["fp16"] < apart(start, truth.parameters)


def test_bf16_needs_no_scale():
    run = learned(sim.stack(sim.DataParallel(), sim.MixedPrecision("bf16")), 2, faint())
    assert apart(run, learned(sim.Single(), 1, faint())) < 20 * TYPES["bf16"]


# ---------------------------------------------------------------- overflow


def loud(first: float = 1.0) -> sim.Problem:
    """Gradients of the first block are ``first`` times as large as its input would have it."""

    def blocks() -> list[nn.Module]:
        made = nn.Linear(8, 8)
        with torch.no_grad():
            made.weight /= first
        return [nn.Sequential(made, nn.Tanh()), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)]

    def data(seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return first * torch.randn(24, 8), torch.randn(24, 4)

    return sim.Problem(blocks, nn.functional.mse_loss, data, rule=SGD(1e-3))


HIGH = LossScale(2.0**30, interval=1000)


@everywhere
def test_overflows_are_skipped_by_all_ranks_alike(name: str):
    """The scale halves until gradients fit; nobody moves before."""
    strategy, ranks = PIECES[name]
    mixed = sim.stack(strategy, sim.MixedPrecision("fp16", scale=HIGH))
    run = learned(mixed, ranks, loud(), steps=24)
    found = scales(run)
    (first, *others) = found.values()
    assert len(first) == 24 and first[0] == HIGH.initial / 2 and first[-1] == first[-5]
    assert all(other == first for other in others)
    skipped = next(step for step in range(24) if first[step] != HIGH.initial / 2 ** (step + 1))
    assert 8 < skipped < 20
    start = {name: _rounded(array, "fp16") for name, array in loud().parameters(SEED).items()}
    still, moved = (learned(mixed, ranks, loud(), steps=steps).parameters for steps in (skipped, skipped + 1))
    assert all(np.array_equal(still[k], start[k]) for k in start)
    assert any(not np.array_equal(moved[k], start[k]) for k in start)
    assert "replicas" not in run.notes


@everywhere
def test_an_overflow_in_one_piece_is_an_overflow_for_all(name: str):
    """Only the first block's gradients are too large, those of the others would do."""
    strategy, ranks = PIECES[name]
    mixed = sim.stack(strategy, sim.MixedPrecision("fp16", scale=FixedScale(1024.0)))
    what = loud(2.0**13)
    start = {name: _rounded(array, "fp16") for name, array in what.parameters(SEED).items()}
    run = learned(mixed, ranks, what, steps=1)
    assert all(np.array_equal(run.parameters[k], start[k]) for k in start)
    lower = learned(sim.stack(strategy, sim.MixedPrecision("fp16", scale=FixedScale(64.0))), ranks, what, steps=1)
    assert not np.array_equal(lower.parameters["0.0.weight"], start["0.0.weight"])


def test_without_agreement_a_piece_would_skip_alone():
    """Two servers have a half of the parameters each, and tell each other nothing: the second moves on."""
    mixed = sim.stack(sim.ParameterServer(servers=2), sim.MixedPrecision("fp16", scale=FixedScale(1024.0)))
    what = loud(2.0**13)
    start = {name: _rounded(array, "fp16") for name, array in what.parameters(SEED).items()}
    run = learned(mixed, 4, what, steps=1)
    assert np.array_equal(run.parameters["0.0.weight"], start["0.0.weight"])
    assert not np.array_equal(run.parameters["3.bias"], start["3.bias"])


@pytest.mark.parametrize("name", ["sharded-3", "1f1b"])
def test_real_ranks_skip_alike(name: str):
    strategy, ranks = PIECES[name]
    mixed = sim.stack(strategy, sim.MixedPrecision("fp16", scale=HIGH))
    run = lab.execute(mixed, loud(), ranks=ranks, steps=24, seed=SEED, timeout=120, progress=False)
    ours = learned(mixed, ranks, loud(), steps=24)
    assert scales(run) == scales(ours) and apart(run, ours) == 0
    assert list(run.bytes_sent) == list(ours.bytes_sent)


def test_a_scale_grows_again():
    mixed = sim.stack(sim.DataParallel(), sim.MixedPrecision("fp16", scale=LossScale(8.0, interval=2)))
    assert scales(learned(mixed, 2, loud(), steps=5))[1] == [8.0, 16.0, 16.0, 32.0, 32.0]


# ---------------------------------------------------------------- who tells whom


def alarms(strategy, ranks: int, rank: int = 0, blocks: int = 4) -> list[str]:
    """What a rank says about overflows in a step."""
    model = sim.Model.of_times(blocks=blocks, parameters=100 * blocks, batch=8).in_parts(units=4)
    return [text for text in sim.listing(strategy, ranks, model)[rank] if "overflow" in text or "alarm" in text]


TOP = ErrorFeedback(TopK(0.1))
RULE, SCALED = Scaled(SGD(0.1)), sim.MixedPrecision("fp16", scale=LossScale())


def test_ranks_that_update_alike_say_nothing():
    assert alarms(sim.DataParallel(rule=RULE), 4) == alarms(sim.Sharded(3, rule=RULE), 1) == []
    assert alarms(sim.Pipeline(rule=SGD(0.1)), 2) == []


def test_shards_of_stages_tell_each_other_once_in_a_step():
    said = alarms(sim.stack(sim.Pipeline("1f1b", 2, stages=2, rule=RULE), sim.Sharded(3)), 4)
    axes = ["AllReduce overflow[0] over pipeline", "AllReduce overflow[0] over data"]
    shards = [f"Reduce Grads({block})[0/2] += 1 overflow[0]" for block in (1, 0)]
    assert said == ["Compute alarm", *axes, *shards]


def test_units_of_replicas_tell_along_their_own_axis():
    strategy = sim.stack(sim.DataParallel(replicas=2, rule=RULE), sim.TensorParallel())
    assert alarms(strategy, 4)[:2] == ["Compute alarm", "AllReduce overflow[0] over tensor"]
    sim.validate(strategy, 4)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: sim.MixedPrecision("fp8"), r"computes in 'bf16' or 'fp16'; got dtype='fp8'"),
        (lambda: sim.MixedPrecision(scale=1024.0), r"scale.*rules.LossScale\(\)"),
        (lambda: sim.MixedPrecision(accumulate=1), "accumulate"),
        (lambda: learned(sim.stack(sim.Single(rule=RULE), sim.MixedPrecision(scale=FixedScale(2.0))), 1), "one scale"),
        (lambda: learned(sim.stack(sim.MixedPrecision("bf16"), sim.MixedPrecision("fp16")), 1), "one type"),
        (lambda: learned(sim.stack(sim.MixedPrecision()), 1, sim.problem("tiny-moe")), "mixture of experts"),
        (lambda: learned(sim.FedProx(rule=RULE), 3), "FedProx works with gradients of the loss itself"),
        (lambda: learned(sim.SCAFFOLD(rule=RULE), 3), "SCAFFOLD works with gradients of the loss itself"),
        (lambda: learned(sim.stack(sim.DataParallel(rule=RULE), sim.NoiseScale()), 2), "NoiseScale works with"),
        (lambda: learned(sim.stack(sim.OneBitAdam(), SCALED), 2), "OneBitAdam works with gradients of the loss itself"),
        (lambda: learned(sim.FedAsync(mu=0.1, rule=RULE), 3), "FedAsync with a spring works with gradients of the"),
        (lambda: learned(sim.DataParallel(aggregate="clipped", rule=RULE), 2), "ClippedMean.* works with gradients of"),
        (lambda: learned(sim.DataParallel(compression=TOP, rule=RULE), 2), "their scale would change"),
        (lambda: learned(sim.stack(sim.DataParallel(), sim.Compressed(DGC(0.1)), SCALED), 2), "scale would change"),
        (lambda: learned(sim.ParameterServer(rule=RULE), 3), "give Scaled a FixedScale"),
    ],
)
def test_mistakes_are_refused(make, says: str):
    with pytest.raises(ValueError, match=says):
        make()


def test_what_is_left_out_of_a_step_keeps_a_scale_that_stays():
    fixed = learned(sim.DataParallel(compression=TOP, rule=Scaled(SGD(0.1), FixedScale(1024.0))), 2)
    assert apart(fixed, learned(sim.DataParallel(compression=TOP, rule=SGD(0.1)), 2)) == 0


@pytest.mark.parametrize("dtype", TYPES)
def test_the_norm_of_long_gradients_does_not_overflow(dtype: str):
    """Of a gradient of norm 256 the squares overflow in fp16, and what is clipped to nothing does not learn."""

    def far(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return 1e4 * nn.functional.cross_entropy(output, targets)

    what = sim.Problem(problem().blocks, far, problem().data, rule=SGD(1e-4))
    each = sim.DataParallel(aggregate=sim.aggregation.ClippedMean(1e3))
    for clip in (sim.stack(sim.DataParallel(), sim.GlobalClip(1e3)), each):
        truth = learned(clip, 2, what)
        assert apart(learned(sim.stack(clip, sim.MixedPrecision(dtype)), 2, what), truth) < 20 * TYPES[dtype]
        assert apart(what.parameters(SEED), truth.parameters) > 20 * TYPES[dtype]


def test_a_last_stage_without_parameters_cannot_see_overflows():
    what = sim.Problem([nn.Linear(8, 4), nn.Identity()], nn.functional.mse_loss, loud().data)
    with pytest.raises(ValueError, match=r"rank 1 has none.*FixedScale"):
        learned(sim.Pipeline("gpipe", 2, rule=RULE), 2, what)
    fixed = learned(sim.Pipeline("gpipe", 2, rule=Scaled(SGD(0.1), FixedScale(4.0))), 2, what)
    assert apart(fixed, learned(sim.Single(rule=SGD(0.1)), 1, what)) < 1e-6
