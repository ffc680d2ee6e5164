"""What several workers' gradients become: aggregation, clipping of the common gradient, its noise."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from common.runs import apart, digits, learned
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import lab
import simulator as sim
from simulator import noise_scale, rules
from simulator.noise_scale import averaged, noise_of
from simulator.strategies.aggregation import (
    AGGREGATIONS,
    ClippedMean,
    Maximum,
    Mean,
    Median,
    TrimmedMean,
    WeightedMean,
)
from simulator.values import bounds

numbers = st.floats(-1e6, 1e6)
shapes = st.tuples(st.integers(1, 7), st.integers(1, 5))
tables = shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=numbers))
EVERY = [*AGGREGATIONS.values(), TrimmedMean(0.4), ClippedMean(3.0)]


# ---------------------------------------------------------------- functions


@settings(max_examples=60, deadline=None)
@given(table=tables)
def test_all_but_clipped_ones_lie_between_the_least_and_the_most(table):
    rows = torch.from_numpy(table)
    slack = 1e-9 * float(rows.abs().max())
    for aggregate in (Mean(), WeightedMean(), Maximum(), Median(), TrimmedMean(0.3)):
        found = aggregate(rows)
        assert bool((found >= rows.amin(0) - slack).all() and (found <= rows.amax(0) + slack).all())
    median = Median()(rows)
    assert bool((median >= rows.amin(0)).all() and (median <= rows.amax(0)).all())
    np.testing.assert_allclose(median.numpy(), np.median(table, axis=0), rtol=1e-12, atol=1e-300)


@settings(max_examples=30, deadline=None)
@given(table=arrays(np.float64, (4, 3), elements=numbers))
@pytest.mark.parametrize("aggregate", EVERY, ids=repr)
def test_it_does_not_matter_who_is_who(aggregate, table):
    rows = torch.from_numpy(table)
    expected = aggregate(rows)
    scale = float(rows.abs().max()) + 1
    for order in permutations(range(4)):
        torch.testing.assert_close(aggregate(rows[list(order)]), expected, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("aggregate", EVERY, ids=repr)
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_workers_that_agree_get_what_they_agree_on(aggregate, workers):
    row = torch.tensor([0.3, -0.2, 0.0], dtype=torch.float64)
    torch.testing.assert_close(aggregate(row.repeat(workers, 1)), row, rtol=0, atol=1e-15)


def test_what_each_of_them_gives():
    rows = torch.tensor([[1.0, -3.0], [2.0, 0.0], [6.0, 1.0], [100.0, 2.0]], dtype=torch.float64)
    assert Mean()(rows).tolist() == [27.25, 0.0]
    assert WeightedMean((1, 1, 2, 0))(rows).tolist() == [3.75, -0.25]
    assert Maximum()(rows).tolist() == [100.0, 2.0]  # the plain maximum: -3 is larger in magnitude
    assert Median()(rows).tolist() == [4.0, 0.5] == TrimmedMean(0.25)(rows).tolist()
    assert TrimmedMean(0.24)(rows).tolist() == Mean()(rows).tolist()
    clipped = ClippedMean(1.0)(torch.tensor([[3.0, 4.0], [0.0, 0.5]], dtype=torch.float64))
    torch.testing.assert_close(clipped, torch.tensor([0.3, 0.65], dtype=torch.float64), rtol=1e-6, atol=0)


@given(broken=arrays(np.float64, (2, 3), elements=st.sampled_from([np.nan, np.inf, -np.inf, 1e300, -7.0])))
def test_less_than_half_may_send_anything(broken):
    """Yin et al. 2018: the others decide where the median lies."""
    honest = torch.tensor([[1.0, 5.0, -1.0], [1.1, 5.1, -1.1], [1.2, 5.2, -1.2]], dtype=torch.float64)
    rows = torch.cat([torch.from_numpy(broken), honest])
    for aggregate in (Median(), TrimmedMean(0.4)):
        found = aggregate(rows)
        assert bool((found >= honest.amin(0)).all() and (found <= honest.amax(0)).all())


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: sim.DataParallel(aggregate="mode"), "'mean', 'weighted', 'max'"),
        (lambda: sim.DataParallel(aggregate=None), "aggregated by"),
        (lambda: TrimmedMean(0.5), "share"),
        (lambda: ClippedMean(0.0), "norm"),
        (lambda: WeightedMean((0.0, 0.0)), "not all 0"),
        (lambda: WeightedMean(3), "a number for each worker"),
        (lambda: WeightedMean((1.0, -1.0)), "weights"),
        (lambda: learned(sim.DataParallel(aggregate=WeightedMean((1, 2))), 3), "for each of 3 workers"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---------------------------------------------------------------- in runs


def line(seed, step):
    inputs = torch.randn(24, 6)
    return inputs, inputs.sum(1, keepdim=True)


def sabotaged(seed, step):
    """The last of four workers has garbage in the place of targets."""
    inputs, targets = line(seed, step)
    targets[18:] = 1e4 * torch.randn(6, 1)
    return inputs, targets


def test_a_byzantine_worker_breaks_the_mean_and_not_the_median():
    blocks, loss = [torch.nn.Linear(6, 1)], torch.nn.functional.mse_loss
    made = (sim.Problem(blocks, loss, data, dtype="float64", rule=rules.SGD(0.1)) for data in (line, sabotaged))
    honest, broken = made

    def error(aggregate, problem):
        run = learned(sim.DataParallel(aggregate=aggregate), 4, 60, problem)
        assert not run.notes
        return honest.evaluate(run.parameters)["loss"]

    assert error("mean", honest) < 1e-3 and error("mean", broken) > 10 and error("weighted", broken) > 10
    assert error("median", broken) < 0.1 and error(TrimmedMean(0.25), broken) < 0.1
    assert error(ClippedMean(1.0), broken) < 1 < error("max", broken)


def equal_samples(seed, step):
    generator = torch.Generator().manual_seed(step)
    sample, target = torch.randn(1, 6, generator=generator), torch.randn(1, 1, generator=generator)
    return sample.repeat(14, 1), target.repeat(14, 1)


@pytest.mark.parametrize("aggregate", [*AGGREGATIONS, ClippedMean(1e9), WeightedMean((1.0, 5.0, 0.0))], ids=str)
def test_workers_with_equal_samples_agree_however_many_they_have(aggregate):
    """14 samples make slices of 4, 5 and 5: a worker's own gradient does not depend on how many it has."""
    blocks = [torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)]
    problem = sim.Problem(blocks, torch.nn.functional.mse_loss, equal_samples, dtype="float64", rule=rules.SGD(0.05))
    clip = ClippedMean(1e9) if aggregate == "clipped" else aggregate
    run = learned(sim.DataParallel(bucket_bytes=0, aggregate=clip), 3, problem=problem)
    assert apart(run, learned(sim.Single(), 1, problem=problem)) < 1e-12


def test_nobody_pulls_further_than_the_norm():
    problem = digits()
    start = problem.parameters(1)
    for bucket_bytes in (0, 1e9):
        strategy = sim.DataParallel(bucket_bytes, aggregate=ClippedMean(0.01), rule=rules.SGD(1.0))
        run = learned(strategy, 3, 1, problem)
        moved = np.sqrt(sum(float(((start[name] - run.parameters[name]) ** 2).sum()) for name in start))
        assert 0.001 < moved <= 0.01 * 25 / 24  # slices of 8, 8 and 9 count as their samples


# ---------------------------------------------------------------- clipping by the norm of all

RULE = rules.SGD(0.3)
CLIP = 0.1
DENSE = [
    (sim.stack(sim.DataParallel(rule=RULE), sim.GlobalClip(CLIP)), 3),
    (sim.stack(sim.DataParallel(0, overlap=False, rule=RULE), sim.GlobalClip(CLIP)), 4),
    (sim.stack(sim.DataParallel(rule=RULE), sim.GlobalClip(CLIP), sim.RingAllReduce()), 3),
    (sim.stack(sim.DataParallel(compression=sim.compression.Identity(), rule=RULE), sim.GlobalClip(CLIP)), 2),
    (sim.stack(sim.Pipeline("1f1b", 3, rule=RULE), sim.GlobalClip(CLIP)), 3),
    (sim.stack(sim.Pipeline("zb-h1", 3, rule=RULE), sim.DataParallel(), sim.GlobalClip(CLIP)), 4),
    (sim.stack(sim.Pipeline("interleaved", 4, chunks=2, rule=RULE), sim.DataParallel(0), sim.GlobalClip(CLIP)), 4),
    (sim.stack(sim.TensorParallel(rule=RULE), sim.GlobalClip(CLIP)), 2),
    (sim.stack(sim.DataParallel(replicas=2, rule=RULE), sim.TensorParallel(), sim.GlobalClip(CLIP)), 4),
    (sim.stack(sim.Pipeline("1f1b", 2, rule=RULE), sim.Sharded(2), sim.GlobalClip(CLIP)), 4),
    *((sim.stack(sim.Sharded(stage, rule=RULE), sim.GlobalClip(CLIP)), 3) for stage in (1, 2, 3)),
]


def torch_clips(problem, steps, rule):
    """The same by hand: torch's own clip_grad_norm_ on one process."""
    blocks = problem.build(1)
    parameters = [parameter for block in blocks for parameter in block.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=rule.lr)
    for step in range(steps):
        out, targets = problem.batch_of(1, step)
        optimizer.zero_grad()
        for block in blocks:
            out = block(out)
        problem.loss(out, targets).backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
    return torch.cat([parameter.detach().reshape(-1) for parameter in parameters])


@pytest.mark.parametrize("strategy, ranks", DENSE, ids=lambda one: str(one)[:60])
def test_all_clip_as_torch_does_on_one_process(strategy, ranks):
    run = learned(strategy, ranks)
    ours = torch.cat([torch.tensor(numbers).reshape(-1) for numbers in run.parameters.values()])
    torch.testing.assert_close(ours, torch_clips(digits(), 4, RULE), rtol=0, atol=1e-12)
    assert apart(run, learned(sim.Single(rule=RULE), 1)) > 0.01 and not run.notes


@pytest.mark.parametrize(
    "name, layer",
    [("tiny-moe", sim.ExpertParallel(rule=RULE)), ("tiny-gpt", sim.ContextParallel(rule=RULE)),
     ("tiny-gpt", sim.TensorParallel(True, rule=RULE))],
    ids=["expert", "context", "sequence"],
)  # fmt: skip
def test_what_several_ranks_hold_counts_once(name, layer):
    problem = sim.problem(name, dtype="float64", layers=1, hidden=16, heads=4, sequence=12, batch=8)
    truth = learned(sim.Single(rule=rules.Clipped(RULE, norm=CLIP)), 1, 3, problem)
    assert apart(learned(sim.stack(layer, sim.GlobalClip(CLIP)), 2, 3, problem), truth) < 1e-12


def test_a_short_gradient_stays_as_it_is():
    run = learned(sim.stack(sim.DataParallel(rule=RULE), sim.GlobalClip(1e6)), 2)
    assert apart(run, learned(sim.DataParallel(rule=RULE), 2)) == 0


@pytest.mark.parametrize(
    "strategy, ranks, message",
    [
        (lambda: sim.stack(sim.GlobalClip(1.0), sim.DataParallel()), 2, "stands after what averages"),
        (lambda: sim.stack(sim.GlobalClip(1.0), sim.DataParallel(overlap=False)), 2, "stands after what averages"),
        (lambda: sim.stack(sim.ParameterServer(), sim.GlobalClip(1.0)), 2, "use rules.Clipped"),
        (lambda: sim.stack(sim.Sharded(2), sim.TensorParallel(), sim.GlobalClip(1.0)), 4, "use DataParallel"),
        (lambda: sim.stack(sim.PipeDream(), sim.GlobalClip(1.0)), 2, r"1 update.* a pipeline that is flushed"),
        (lambda: sim.GlobalClip(0.0), 2, "norm"),
        (
            lambda: sim.stack(sim.DataParallel(rule=rules.Scaled(RULE)), sim.GlobalClip(1.0)),
            2,
            "rules.Scaled.rules.Clipped",
        ),
    ],
)
def test_what_cannot_be_clipped_is_refused(strategy, ranks, message):
    with pytest.raises(ValueError, match=message):
        sim.validate(sim.stack(strategy()), ranks, digits())


# ---------------------------------------------------------------- the noise of gradients

WIDTH = 20


def noisy(seed, step):
    """The gradient of a sample is the sample: a mean of 0.5 in every direction, and a variance of 1."""
    return torch.randn(64, WIDTH) + 0.5, torch.zeros(64, 1)


def slopes():
    return sim.Problem(
        [torch.nn.Linear(WIDTH, 1, bias=False)], lambda out, _: out.mean(), noisy, dtype="float64", rule=rules.SGD(1e-3)
    )


@pytest.mark.parametrize("layer, ranks", [(sim.DataParallel(), 5), (sim.Sharded(1), 5), (sim.Sharded(3), 2)], ids=str)
def test_d28_noise_and_signal_are_found_without_bias(layer, ranks):
    """‖G‖² = 20 · 0.25 and tr Σ = 20, also where 5 workers have slices of 12 and 13 samples."""
    run = learned(sim.stack(layer, sim.NoiseScale()), ranks, 200, slopes())
    found = averaged(noise_of(run))
    assert found.signal == pytest.approx(5, rel=0.03) and found.noise == pytest.approx(WIDTH, rel=0.05)
    assert found.scale == pytest.approx(4, rel=0.1)


def test_d28_along_a_pipeline_stages_add_up():
    flat, piped = (
        noise_of(learned(sim.stack(*parts, sim.NoiseScale()), ranks, 2, digits()))
        for parts, ranks in (((sim.DataParallel(),), 2), ((sim.Pipeline("1f1b", 2), sim.DataParallel(0)), 4))
    )
    for one, other in zip(flat, piped, strict=True):
        assert (one.signal, one.noise) == pytest.approx((other.signal, other.noise), rel=1e-9)


def test_real_ranks_note_the_same_noise():
    strategy = sim.stack(sim.DataParallel(), sim.NoiseScale())
    real = lab.execute(strategy, digits(), ranks=2, steps=2, seed=1, timeout=60)
    for one, other in zip(noise_of(real), noise_of(learned(strategy, 2, 2)), strict=True):
        assert (one.signal, one.noise) == pytest.approx((other.signal, other.noise), rel=1e-9)


def test_noise_needs_workers_that_are_watched():
    for strategy, ranks in ((sim.DataParallel(), 2), (sim.stack(sim.DataParallel(), sim.NoiseScale()), 1)):
        with pytest.raises(ValueError, match=r"stack\(DataParallel\(\), NoiseScale\(\)\)"):
            noise_of(learned(strategy, ranks, 1))
    with pytest.raises(ValueError, match="leave it out"):
        sim.validate(sim.stack(sim.TensorParallel(), sim.NoiseScale()), 2)
    assert noise_scale.OWN != noise_scale.AVERAGED and bounds(64, 4, 5) == (51, 64)
