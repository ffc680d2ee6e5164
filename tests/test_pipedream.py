"""PipeDream: a pipeline without flush, against a plain loop of delayed gradients and the facts of B13."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import theory
from simulator.rules import SGD
from simulator.values import bounds

LR, SEED = 0.3, 5


def problem(layers: int = 6) -> sim.Problem:
    """Six blocks, double precision."""
    return sim.problem("digits-mlp", dtype="float64", layers=layers, hidden=12, batch=10)


def learned(stages: int, steps: int) -> sim.Run:
    """What PipeDream gives on the virtual clock."""
    strategy = sim.PipeDream(rule=SGD(LR))
    return sim.simulate(strategy, problem(), sim.cluster("ideal", ranks=stages), steps=steps, seed=SEED)


def delayed(stages: int, steps: int) -> tuple[list[np.ndarray], list[float]]:
    """w(k+1) = w(k) - lr·g(versions that each stage had), in one process: parameters at the end, losses.

    Stage s has in step k the weights of version k-(p-1-s), or the first ones.
    """
    task = problem()
    blocks = task.build(SEED)
    history = [[[p.detach().clone() for p in block.parameters()] for block in blocks]]
    losses = []
    for step in range(steps):
        for stage in range(stages):
            for number in range(*bounds(len(blocks), stage, stages)):
                version = history[max(0, step - (stages - 1 - stage))][number]
                for parameter, value in zip(blocks[number].parameters(), version, strict=True):
                    parameter.data, parameter.grad = value.clone(), None
        value, targets = task.batch_of(SEED, step)
        for block in blocks:
            value = block(value)
        loss = task.loss(value, targets)
        loss.backward()
        losses.append(loss.item())
        slopes = [[p.grad for p in block.parameters()] for block in blocks]
        history.append(
            [[w - LR * g for w, g in zip(old, new, strict=True)] for old, new in zip(history[-1], slopes, strict=True)]
        )
    return [w.numpy() for block in history[-1] for w in block], losses


def apart(run: sim.Run, expected: list[np.ndarray]) -> float:
    """The largest difference of any parameter."""
    return max(float(np.abs(a - b).max()) for a, b in zip(run.parameters.values(), expected, strict=True))


@pytest.mark.parametrize("stages", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("steps", [1, 3, 9])
def test_it_is_gradient_descent_with_delayed_gradients(stages: int, steps: int):
    run, (parameters, losses) = learned(stages, steps), delayed(stages, steps)
    assert apart(run, parameters) <= 1e-9
    assert run.losses == pytest.approx(losses, abs=1e-9)


def test_delays_matter_and_one_stage_has_none():
    alone, _ = delayed(1, 9)
    assert apart(learned(4, 9), alone) > 1e-4
    assert apart(learned(1, 9), alone) <= 1e-9


def test_replicas_of_each_stage_are_averaged():
    strategy = sim.stack(sim.PipeDream(stages=2, rule=SGD(LR)), sim.DataParallel())
    run = sim.simulate(strategy, problem(), sim.cluster("ideal", ranks=4), steps=5, seed=SEED)
    assert apart(run, delayed(2, 5)[0]) <= 1e-9


# ---------------------------------------------------------------- B13


def timed(stages: int, steps: int, forward: float = 1.0, backward: float = 2.0) -> sim.Run:
    """A block per stage, on a free network."""
    model = sim.Model.of_times(blocks=stages, forward=forward, backward=backward, parameters=100 * stages)
    return sim.simulate(sim.PipeDream(), model, sim.cluster("ideal", ranks=stages), steps=steps)


@settings(max_examples=40, deadline=None)
@given(
    stages=st.integers(1, 6), steps=st.integers(1, 12), forward=st.floats(0.05, 4.0), backward=st.floats(0.05, 4.0)
)  # fmt: skip
def test_b13_no_bubble_once_it_is_full(stages: int, steps: int, forward: float, backward: float):
    run = timed(stages, steps, forward, backward)
    assert run.makespan == pytest.approx(theory.pipeline(stages, steps, forward, backward), rel=1e-9)
    assert run.step_times[1:] == pytest.approx([forward + backward] * (steps - 1))


@settings(max_examples=30, deadline=None)
@given(stages=st.integers(1, 6), steps=st.integers(1, 12))
def test_b13_staleness_and_minibatches_in_flight(stages: int, steps: int):
    run = timed(stages, steps)
    for stage in range(stages):
        delays = [sample.value for sample in run.samples if (sample.rank, sample.name) == (stage, "staleness")]
        assert delays == [min(step, stages - 1 - stage) for step in range(steps)]
    assert run.in_flight == [theory.in_flight("1f1b", stage, stages, steps) for stage in range(stages)]


def test_b13_in_numbers():
    run = timed(4, 10)
    assert [max(s.value for s in run.samples if s.rank == rank) for rank in range(4)] == [3, 2, 1, 0]


def test_b13_a_stage_keeps_as_many_versions_as_minibatches():
    """p-s versions; the last stage has but the one that it learns."""
    columns = sim.listing(sim.PipeDream(), ranks=4, steps=10).columns
    kept = [{text.split(" to ")[1] for text in column if text.startswith("Copy Params")} for column in columns]
    assert [max(1, len(names)) for names in kept] == [4, 3, 2, 1]


# ---------------------------------------------------------------- what it is


def test_it_depends_on_nobody_being_faster():
    """Whatever the speeds and messages, the numbers are the same: no replay is needed."""
    slow = sim.Cluster.flat(ranks=3, bandwidth=1e5, latency=0.01)
    runs = [
        sim.simulate(sim.PipeDream(), problem(), cluster, steps=5, seed=SEED, noise=noise)
        for cluster, noise in ((sim.cluster("ideal", ranks=3), None), (slow, sim.noise.gamma(2.0)))
    ]
    assert runs[0].losses == runs[1].losses
    assert sim.stack(sim.PipeDream()).order.static


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: sim.PipeDream(stages=0), "at least 1.*got stages=0"),
        (lambda: timed(3, 1) and sim.validate(sim.PipeDream(), 3, sim.Model.of_times(blocks=2)), "got 2 block"),
        (lambda: sim.validate(sim.PipeDream(stages=2), ranks=3), "got ranks=3"),
    ],
)
def test_what_cannot_be_is_refused(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()
