"""``simulate`` as its users meet it: the same every time, kind to mistakes, open to programs of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import noise

MODEL = sim.Model.of_times(blocks=3, parameters=3000, activation_bytes=8, batch=24)
FLAT = sim.Cluster.flat(ranks=4, bandwidth=1e4, latency=0.01)
ASYNC = sim.ParameterServer(mode="async")


def timed(strategy: sim.Order | sim.Layer, cluster: sim.Cluster = FLAT, **knobs: object) -> sim.Run:
    """Five steps of the model."""
    return sim.simulate(strategy, MODEL, cluster, **{"steps": 5, **knobs})  # type: ignore[arg-type]


# ---------------------------------------------------------------- the same every time

EXAMPLES: dict[str, Callable[[], sim.Run]] = {
    "timed": lambda: timed(ASYNC, seed=3, noise=noise.lognormal(0.5)),
    "backups": lambda: timed(sim.ParameterServer(backups=1), seed=3, noise=noise.exponential()),
    "data": lambda: timed(sim.DataParallel(bucket_bytes=0), noise=noise.gamma(4.0, per="instruction")),
    "learned": lambda: sim.simulate(sim.Pipeline(microbatches=3), sim.problem("digits-mlp"), FLAT, steps=2, seed=4),
    "learned late": lambda: sim.simulate(ASYNC, sim.problem("tiny-gpt", layers=1, hidden=8, heads=1), FLAT, steps=2),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_same_arguments_same_run(name: str):
    first, second = EXAMPLES[name](), EXAMPLES[name]()
    assert first == second and first.digest() == second.digest()
    assert list(first.spans.data) == list(second.spans.data) and first.samples == second.samples


def test_another_process_gives_the_same_run():
    program = "import test_simulate as t; print(*(f().digest() for f in t.EXAMPLES.values()))"
    here = Path(__file__).parent
    paths = f"import sys; sys.path[:0] = [{str(here)!r}, {str(here.parent)!r}]; "
    for hashing in ("1", "2"):
        said = subprocess.run(
            [sys.executable, "-c", paths + program],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": hashing, "PATH": ""},
        )
        assert said.stdout.split() == [example().digest() for example in EXAMPLES.values()]


@pytest.mark.parametrize("strategy", [sim.DataParallel(), ASYNC], ids=str)
def test_other_seeds_other_runs(strategy: sim.Order):
    runs = [timed(strategy, seed=seed, noise=noise.exponential()) for seed in (0, 1, 2)]
    assert len({run.makespan for run in runs}) == 3
    assert timed(strategy, seed=0).makespan == timed(strategy, seed=1).makespan  # nothing is left to chance


def test_learning_does_not_change_the_time():
    problem = sim.problem("digits-mlp")
    learned, only_timed = (sim.simulate(ASYNC, problem, FLAT, steps=3, learn=learn) for learn in (True, False))
    assert list(learned.spans.data) == list(only_timed.spans.data)
    assert learned.staleness == only_timed.staleness
    assert learned.parameters and not only_timed.parameters and only_timed.losses == []


def test_simulating_leaves_torch_as_it_was():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    EXAMPLES["learned"]()
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)


# ---------------------------------------------------------------- noise

laws = st.sampled_from(
    [noise.exponential(), noise.gamma(4.0), noise.lognormal(0.5), noise.exponential() * noise.slow({1: 2.0})]
)


@settings(max_examples=30, deadline=None)
@given(law=laws, seed=st.integers(0, 2**31), ranks=st.integers(2, 6))
def test_more_ranks_do_not_change_anybody_s_luck(law: noise.Noise, seed: int, ranks: int):
    few, many = (
        timed(sim.DataParallel(), sim.cluster("ideal", ranks=n), seed=seed, noise=law, steps=2) for n in (2, ranks)
    )
    for rank in (0, 1):
        lengths = [
            [s.end - s.start for s in run.spans if s.rank == rank and s.stream == "compute"] for run in (few, many)
        ]
        assert lengths[0] == pytest.approx(lengths[1])


@pytest.mark.parametrize(
    "law, deviation",
    [
        (noise.exponential(), 1.0),
        (noise.gamma(4.0), 0.5),
        (noise.lognormal(0.5), np.sqrt(np.expm1(0.25))),
        (noise.fixed(), 0.0),
        (noise.gamma(4.0) * noise.gamma(4.0), np.sqrt(1.25**2 - 1)),
    ],
    ids=repr,
)
def test_random_laws_have_mean_one(law: noise.Noise, deviation: float):
    draws = np.array([law.factor(rank, 7)(step) for rank in range(20000) for step in (0,)])
    assert draws.mean() == pytest.approx(1.0, abs=0.025) and draws.std() == pytest.approx(deviation, abs=0.05)


def test_a_factor_lasts_a_step_or_an_instruction():
    for per, kinds in (("step", 1), ("instruction", 3)):
        run = sim.simulate(sim.Single(), MODEL, sim.cluster("ideal", ranks=1), noise=noise.exponential(per=per))
        for step in range(10):
            lengths = {round(s.end - s.start, 9) for s in run.spans if s.step == step and "Forward" in s.instruction}
            assert len(lengths) == kinds


def test_slow_ranks_are_slow_and_laws_multiply():
    run = timed(sim.ParameterServer(), noise=noise.slow({2: 3.0}) * noise.slow({2: 2.0, 3: 5.0}))
    assert run.busy == pytest.approx([0.0, 45.0, 270.0, 225.0])
    with pytest.raises(TypeError):
        noise.exponential() * 2  # type: ignore[operator]


@pytest.mark.parametrize(
    "bad",
    [
        lambda: noise.gamma(0),
        lambda: noise.lognormal(-1),
        lambda: noise.slow({0: 0}),
        lambda: noise.exponential(per="day"),
        lambda: noise.gamma(float("nan")),
    ],
)
def test_bad_laws(bad: Callable[[], object]):
    with pytest.raises(ValueError, match="got"):
        bad()


# ---------------------------------------------------------------- replay


def learned(law: noise.Noise | None = None, replay: sim.Run | None = None, **knobs: object) -> sim.Run:
    """An asynchronous run in which it matters who comes first."""
    arguments = {"strategy": ASYNC, "workload": sim.problem("digits-mlp", dtype="float64", hidden=8), "steps": 4}
    return sim.simulate(cluster=FLAT, noise=law, replay=replay, **{**arguments, **knobs})  # type: ignore[arg-type]


def numbers(run: sim.Run) -> list[float]:
    """Losses worker by worker."""
    return [row.loss for row in sorted(run.losses, key=lambda row: (row.worker, row.time))]  # type: ignore[union-attr]


def test_a_replay_gives_the_numbers_in_another_time():
    first, plain = learned(noise.exponential()), learned()
    assert numbers(first) != pytest.approx(numbers(plain), abs=1e-6)  # the order of arrival matters
    again = learned(replay=first)
    assert again.outcomes == first.outcomes != plain.outcomes
    assert numbers(again) == numbers(first) and again.makespan != first.makespan
    for name in first.parameters:
        assert np.array_equal(again.parameters[name], first.parameters[name])


@pytest.mark.parametrize(
    "other",
    [
        {"steps": 5},
        {"seed": 1},
        {"strategy": sim.ParameterServer(mode="ssp", bound=1)},
        {"workload": sim.problem("digits-conv")},
    ],
    ids=str,
)
def test_a_replay_of_another_run_is_refused(other: dict[str, object]):
    with pytest.raises(ValueError, match="a replay repeats the same"):
        learned(replay=learned(noise.exponential()), **other)


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "bad, message",
    [
        (lambda: timed(sim.DataParallel(), ranks=3), "got ranks=3 on a cluster of 4"),
        (lambda: timed(sim.DataParallel(), steps=0), "steps is a whole number, at least 1; got steps=0"),
        (lambda: timed(sim.DataParallel(), steps=2.5), "got steps=2.5"),
        (lambda: timed(sim.Single()), r"Single\(\) runs on 1 rank\(s\); got ranks=4"),
        (lambda: timed(sim.ParameterServer(servers=4)), "got ranks=4"),
        (lambda: timed("DataParallel"), "a strategy is an Order, a Layer or a stack of them; got 'DataParallel'"),
        (lambda: sim.simulate(sim.DataParallel(), "digits-mlp", FLAT), "a workload is a Model .* got 'digits-mlp'"),
        (lambda: timed(sim.DataParallel(), learn=True), "a Model has no tensors to learn with"),
        (lambda: sim.ParameterServer(mode="sometimes"), "'sync', 'async', 'ssp'; got 'sometimes'"),
        (lambda: sim.ParameterServer(mode="ssp"), "got mode='ssp', bound=None"),
        (lambda: sim.ParameterServer(bound=2), "got mode='sync', bound=2"),
        (lambda: sim.ParameterServer(mode="ssp", bound=-1), "got bound=-1"),
        (lambda: sim.ParameterServer(mode="async", backups=1), "got backups=1"),
        (lambda: sim.ParameterServer(servers=0), "got servers=0"),
        (lambda: sim.DataParallel(bucket_bytes=-1), "got bucket_bytes=-1"),
        (lambda: sim.DataParallel(bucket_bytes=float("nan")), "got bucket_bytes=nan"),
        (lambda: sim.OneBitAdam(bucket_bytes=-1), "got bucket_bytes=-1"),
        (lambda: sim.PostLocalSGD(bucket_bytes=-1), "got bucket_bytes=-1"),
        (lambda: sim.Sharded(bucket_bytes=float("nan")), "got bucket_bytes=nan"),
        (lambda: sim.DataParallel(replicas=0), "got replicas=0"),
        (lambda: sim.cluster("cloud", ranks=2), "no cluster is called 'cloud'; the names are 'ideal'"),
        (lambda: sim.Cluster.flat(ranks=0, bandwidth=1.0), "got ranks=0"),
        (lambda: sim.Cluster.flat(ranks=2, bandwidth=0.0), "got bandwidth=0.0"),
        (lambda: sim.Cluster.flat(ranks=2, bandwidth=1.0, latency=-1.0), "got latency=-1.0"),
        (lambda: sim.Model.of_times(blocks=0), "got blocks=0"),
        (lambda: sim.Model.of_times(forward=-1.0), "got forward=-1.0"),
        (lambda: sim.AllReduce(sim.Grads(0), op="max"), "'mean', 'sum'; got op='max'"),
    ],
)
def test_mistakes_are_named(bad: Callable[[], object], message: str):
    with pytest.raises(ValueError, match=message) as caught:
        bad()
    assert len(str(caught.value)) > 30


@pytest.mark.parametrize("strategy", [sim.DataParallel(), sim.Pipeline(microbatches=2), ASYNC], ids=str)
def test_divergence_is_named(strategy: sim.Order):
    wild = sim.problem("quadratic", spectrum=(1.0,) * 4, blocks=4, lr=1e25)
    with pytest.raises(sim.DivergedError, match=r"finite number; rank \d got (inf|nan) in step \d.*learning rate"):
        sim.simulate(strategy, wild, FLAT, steps=9)


# ---------------------------------------------------------------- programs of one's own


@dataclass(frozen=True)
class Gossip(sim.Order):
    """Every rank learns by itself and, after each step, takes the mean with its neighbours' parameters."""

    axis: ClassVar[str | None] = "ring"

    def share(self, me: sim.Rank) -> tuple[int, int] | None:
        return me.at("ring"), me.size("ring")

    def program(self, me: sim.Rank) -> sim.Program:
        mine, theirs, n = sim.Params(me.blocks), sim.Named("theirs"), me.size("ring")
        for _ in me.steps():
            yield sim.Load()
            for block in me.blocks:
                yield sim.Forward(block)
            yield sim.Loss(len(me.blocks))
            for block in reversed(me.blocks):
                yield sim.Backward(block)
            yield sim.Update(mine)
            yield sim.Send(mine, to=(me.at("ring") + 1) % n, over="ring")
            yield sim.Recv(mine, source=(me.at("ring") - 1) % n, over="ring", into=theirs)
            yield sim.Compute(lambda a, b: (a + b) / 2, reads=(mine, theirs), writes=(mine,), seconds=0.5)


def test_an_order_of_one_s_own():
    sim.validate(Gossip(), ranks=4)
    run = timed(Gossip(), sim.cluster("ideal", ranks=4))
    assert run.makespan == 5 * (9.0 + 0.5)
    assert list(run.bytes_sent) == [5 * 12000.0] * 4
    problem = sim.problem("digits-mlp", layers=2, lr=1.0)
    run = sim.simulate(Gossip(), problem, FLAT, steps=12)
    assert run.losses[-1] < run.losses[0]


def test_mixing_by_one_s_own_program_is_exact():
    """Two ranks that take the mean of their parameters after one step of SGD do what data parallelism does."""
    problem, pair = sim.problem("digits-mlp", dtype="float64", hidden=8), sim.cluster("ideal", ranks=2)
    ours, theirs = (sim.simulate(s, problem, pair, steps=1).parameters for s in (Gossip(), sim.DataParallel()))
    assert all(np.allclose(ours[name], theirs[name], atol=1e-12, rtol=0) for name in theirs)


@dataclass(frozen=True)
class Accumulate(sim.Layer):
    """Updates only every second time."""

    def rules(self, me: sim.Rank) -> sim.Rules:
        seen = [0]

        def update(instruction: sim.Update) -> sim.Program:
            seen[0] += 1
            if seen[0] % 2 == 0:
                yield instruction

        return {sim.Update: update}


def test_a_layer_of_one_s_own():
    listed = sim.listing(sim.stack(Accumulate(), sim.DataParallel()), ranks=2, steps=4)
    assert sum("Update" in text for text in listed[0]) == 2
    assert sum("AllReduce" in text for text in listed[0]) == 4


def test_an_order_without_a_program():
    with pytest.raises(NotImplementedError, match="give it a method program"):
        sim.validate(sim.Order(), ranks=1)


# ---------------------------------------------------------------- the truth itself


@pytest.mark.parametrize("name", sim.problems())
def test_single_is_plain_pytorch(name: str):
    problem = sim.problem(name, dtype="float64")
    blocks = torch.nn.Sequential(*problem.build(5))
    optimizer = problem.rule.optimizer(list(blocks.parameters()))
    losses = []
    for step in range(3):
        inputs, targets = problem.batch_of(5, step)
        loss = problem.loss(blocks(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    run = sim.simulate(sim.Single(), problem, sim.cluster("ideal", ranks=1), steps=3, seed=5)
    assert run.losses == pytest.approx(losses, abs=1e-12)
    for mine, theirs in zip(run.parameters.values(), blocks.parameters(), strict=True):
        assert np.allclose(mine, theirs.detach().numpy(), atol=1e-10, rtol=0)


def test_frozen_parameters_stay_as_they_are():
    blocks = [torch.nn.Linear(3, 3), torch.nn.Linear(3, 1)]
    blocks[0].requires_grad_(False)
    problem = sim.Problem(blocks, torch.nn.functional.mse_loss, lambda seed, step: (torch.ones(4, 3), torch.ones(4, 1)))
    for rule in (sim.rules.SGD(0.1), sim.rules.SGD(0.1, weight_decay=0.1)):
        run = sim.simulate(sim.Single(rule=rule), problem, sim.cluster("ideal", ranks=1), steps=2)
        before = problem.parameters(0)
        assert np.array_equal(run.parameters["0.weight"], before["0.weight"])
        assert not np.array_equal(run.parameters["1.weight"], before["1.weight"])


def test_measured_times_keep_the_batch_of_their_problem():
    """Times may have been measured at another batch; gradients must not be scaled by it."""
    problem = sim.problem("quadratic", spectrum=(1.0,), noise=0.0, batch=8)
    other = replace(problem, times=sim.Model.of_times(blocks=1, parameters=1, batch=2))
    one, two = (sim.simulate(sim.Single(), p, sim.cluster("ideal", ranks=1), steps=3) for p in (problem, other))
    assert one.losses == two.losses


# ---------------------------------------------------------------- listing


def test_listing_shows_a_column_per_rank():
    listed = sim.listing(sim.Pipeline("1f1b", microbatches=2), ranks=2, workload=MODEL)
    assert len(listed) == 2 and listed[1][0] == "Load mb0" and listed[0][-1] == "Update Params(0)"
    lines = str(listed).splitlines()
    assert lines[0].split("|")[1:] == [" rank 0".ljust(len(lines[0].split("|")[1])), " rank 1"]
    assert lines[1].startswith("0  | Load mb0")


def test_listing_many_ranks_says_how_many_are_left_out():
    text = str(sim.listing(sim.DataParallel(), ranks=12))
    assert "rank 7" in text and "rank 8" not in text and "… and 4 more ranks" in text


def test_listing_a_program_that_uses_results_shows_one_run():
    listed = sim.listing(ASYNC, ranks=3, steps=2)
    assert sum("Update" in text for text in listed[0]) == 4
    assert listed[1].count("Load mb0") == 2 and "Recv Grads(0..2)[0/1] from any" in listed[0]


def test_listing_what_does_not_fit():
    with pytest.raises(ValueError, match="got ranks=3"):
        sim.listing(sim.Pipeline(stages=2), ranks=3)
