"""Data: loaded ahead or not, prepared by each rank, shared by rows, columns or blocks."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from time import sleep

import numpy as np
import pytest
import torch
from cases import problem
from hypothesis import given, settings
from hypothesis import strategies as st

import lab
import simulator as sim
from simulator import theory
from simulator.hazards import awaits
from simulator.values import Ahead

SLOW = 0.03
"""Seconds that preparing one rank's samples takes, for real."""


def model(compute: float, load: float) -> sim.Model:
    """Three seconds of passes for every two of loading, say."""
    made = sim.Model.of_times(blocks=1, forward=compute / 3, backward=2 * compute / 3, batch=12)
    return replace(made, load=sim.Seconds(load))


def timed(strategy: sim.Order | sim.Layer | sim.Stack, model: sim.Model, ranks: int, steps: int) -> sim.Run:
    """A run where communication is free."""
    return sim.simulate(strategy, model, sim.cluster("ideal", ranks=ranks), steps=steps)


# ---------------------------------------------------------------- on the virtual clock


@settings(max_examples=60, deadline=None)
@given(
    compute=st.floats(0.5, 9.0),
    load=st.floats(0.0, 30.0),
    workers=st.integers(1, 4),
    prefetch=st.integers(1, 3),
    steps=st.integers(1, 12),
    ranks=st.integers(1, 3),
)
def test_a_loader_takes_the_closed_form(compute, load, workers, prefetch, steps, ranks):
    strategy = sim.stack(sim.DataParallel(), sim.Loader(workers, prefetch))
    run = timed(strategy, model(compute, load), ranks, steps)
    assert run.makespan == pytest.approx(theory.loaded(steps, compute, load, workers), rel=1e-9)


@given(
    compute=st.floats(0.5, 9.0), load=st.floats(0.0, 30.0), workers=st.integers(1, 4), steps=st.integers(1, 40)
)
def test_the_closed_form_is_that_of_waves(compute, load, workers, steps):
    """The recursion it solves: a step begins when the one before is done and its own data are here."""
    begin, here = [0.0] * steps, [0.0] * steps
    for step in range(steps):
        here[step] = (here[step - workers] if step >= workers else 0.0) + load
        begin[step] = max(begin[step - 1] + compute if step else 0.0, here[step])
    assert theory.loaded(steps, compute, load, workers) == pytest.approx(begin[-1] + compute, rel=1e-9)


@pytest.mark.parametrize("workers, per_step", [(1, 12.0), (2, 6.0), (3, 4.0), (4, 3.0), (8, 3.0)])
def test_in_the_long_run_a_step_takes_the_slower_of_the_two(workers: int, per_step: float):
    """Twelve seconds of loading, three of computation; without a loader, fifteen."""
    runs = [timed(sim.Loader(workers), model(3.0, 12.0), 1, steps) for steps in (24, 48)]
    assert (runs[1].makespan - runs[0].makespan) / 24 == pytest.approx(per_step)
    assert timed(sim.Single(), model(3.0, 12.0), 1, 24).makespan == 24 * 15


def test_loading_is_shared_by_the_microbatches_of_a_step_and_by_stages():
    """The first and the last stage load; each waits for its own."""
    piped = sim.Pipeline("1f1b", microbatches=4)
    made = replace(sim.Model.of_times(blocks=2, batch=12), load=sim.Seconds(2.0))
    plain, ahead = (timed(s, made, 2, 6) for s in (piped, sim.stack(piped, sim.Loader())))
    free = timed(piped, replace(made, load=sim.Seconds(0.0)), 2, 6)
    assert ahead.makespan == pytest.approx(free.makespan + 2.0)
    assert plain.makespan == pytest.approx(free.makespan + 6 * 2.0)
    assert ahead.instructions[1, "loader 0"][:5] == [f"Load mb{part} of step 0" for part in range(4)] + [
        "Load mb0 of step 1"
    ]


def test_what_is_loaded_ahead_counts_for_its_own_step():
    run = timed(sim.Loader(1, prefetch=3), model(3.0, 12.0), 1, 5)
    assert run.step_times == pytest.approx([15.0, 12.0, 12.0, 12.0, 12.0])


@pytest.mark.parametrize("strategy", [sim.Single(), sim.Loader(1)], ids=str)
def test_loading_keeps_no_device_busy(strategy: sim.Order | sim.Layer):
    """Samples are the host's work: a device that has none yet is idle, in its bubble and in its power too."""
    chip = sim.Device("a chip", power=300.0, idle=100.0)
    run = sim.simulate(strategy, model(3.0, 12.0), sim.cluster("ideal", ranks=1, device=chip), steps=4)
    assert run.busy == pytest.approx([4 * 3.0]) and run.exposed_communication == [0.0]
    assert run.waiting == pytest.approx([run.makespan - 4 * 3.0]) and run.makespan >= 4 * 12.0
    assert run.bubble == pytest.approx(1 - 4 * 3.0 / run.makespan)
    assert run.energy == pytest.approx(100.0 * run.makespan + 200.0 * 4 * 3.0)


def test_a_worker_is_so_many_steps_ahead_and_no_more():
    """Loads of step k+3 begin when step k begins, for one worker that may be three steps ahead."""
    run = timed(sim.Loader(1, prefetch=3), model(3.0, 0.5), 1, 9)
    loads = [span for span in run.spans if span.instruction.startswith("Load")]
    begins = [span.start for span in run.spans if span.instruction.startswith("Forward")]
    assert [span.start for span in loads[4:]] == pytest.approx(begins[1:6], abs=1e-9)
    assert all(a.end <= b.start for a, b in pairwise(loads))


def test_what_was_begun_is_remembered_by_the_rank():
    """A text keeps nothing from step to step: read anew it does not load again what it has loaded."""
    loader = sim.Loader(1, prefetch=2)
    me = sim.Rank(sim.stack(loader), 0, 1, sim.Model.of_times(), steps=9)
    first, again = (list(loader.rules(me)[sim.Load](sim.Load())) for _ in range(2))
    assert [one.step for one in first if isinstance(one, sim.Start)] == [0, 1, 2]
    assert again == first[3:]


def test_a_wait_for_everything_leaves_loads_of_later_steps_alone():
    later = sim.Load(0, step=7)
    assert not awaits(None, [later]) and awaits(None, [sim.Load(0)])
    assert awaits(Ahead(sim.Act(0), 7), [later]) and not awaits(Ahead(sim.Act(0), 6), [later])
    assert sim.Start(later, on="loader 0").step == 7 and sim.Start(sim.Load(0), on="loader 0").step is None
    assert str(later) == "Load mb0 of step 7"


@pytest.mark.parametrize("knobs, message", [((0,), "workers is .*got workers=0"), ((1, 0), "prefetch is .*prefetch=0")])
def test_impossible_loaders_are_refused(knobs: tuple[int, ...], message: str):
    with pytest.raises(ValueError, match=message):
        sim.Loader(*knobs)


# ---------------------------------------------------------------- prepared samples, for real


def slowly(inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Takes its time."""
    sleep(SLOW)
    return 2 * inputs, targets


class Thinking(torch.nn.Module):
    """A block that takes as long as loading does, and needs no processor for it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What came in."""
        sleep(SLOW)
        return x


def slow_problem(*more: torch.nn.Module) -> sim.Problem:
    """Data that are slow to prepare, perhaps for blocks that are slow too."""
    blocks = [torch.nn.Linear(6, 4), *more]
    return sim.Problem(blocks, torch.nn.functional.mse_loss, problem("frozen").data, dtype="float64", prepare=slowly)


def test_what_is_prepared_is_what_is_learned_on_both_clocks():
    made = slow_problem()
    doubled = replace(made, prepare=None, data=lambda seed, step: doubling(*made.data(seed, step)))
    ahead = sim.stack(sim.DataParallel(), sim.Loader(2))
    runs = [
        sim.simulate(sim.Single(), doubled, sim.cluster("ideal", ranks=1), steps=3).parameters,
        sim.simulate(ahead, made, sim.cluster("ideal", ranks=2), steps=3).parameters,
        lab.execute(ahead, made, ranks=2, steps=3).parameters,
    ]
    for name, array in runs[0].items():
        assert all(np.allclose(array, run[name], atol=1e-12) for run in runs[1:])
    assert made.evaluate(runs[0]) == doubled.evaluate(runs[0])


def doubling(inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What ``slowly`` does, at once."""
    return 2 * inputs, targets


def test_real_loading_hides_behind_computation_and_more_workers_load_faster():
    """Steps last at least what they sleep; so much is certain. A busy machine makes all of them longer."""
    steps = 12
    both, only = slow_problem(Thinking()), slow_problem()
    runs = ((sim.Single(), both), (sim.Loader(1), both), (sim.Loader(1), only), (sim.Loader(4), only))
    times = [lab.execute(strategy, made, ranks=1, steps=steps).makespan for strategy, made in runs]
    assert times[0] >= 2 * steps * SLOW and times[2] >= steps * SLOW  # one after the other
    assert times[1] < 0.85 * times[0]  # half, in the limit
    assert times[3] < 0.7 * times[2]  # a quarter, in the limit


def test_spans_of_real_loading_lie_beside_those_of_computation():
    run = lab.execute(sim.Loader(1), slow_problem(Thinking()), ranks=1, steps=6)
    loads = {span.step: span for span in run.spans if span.stream == "loader 0"}
    computes = {span.step: span for span in run.spans if span.instruction == "Forward 1 mb0"}
    assert sorted(loads) == sorted(computes) == list(range(6))
    assert all(loads[step].end <= computes[step].start for step in range(6))
    assert any(loads[step + 1].start < computes[step].end for step in range(5))


@pytest.mark.parametrize(
    "prepare, message",
    [
        (lambda x, y: (x - x.mean(0), y), "treats each sample for itself"),
        (lambda x, y: x, r"prepare\(inputs, targets\) returns two tensors.*got a Tensor"),
        (lambda x, y: (x[:1], y[:1]), r"as many as it was given, 2"),
        (lambda x, y: (torch.rand_like(x), y), "each time alike"),
    ],
)
def test_preparing_that_depends_on_other_samples_is_refused(prepare, message: str):
    made = replace(slow_problem(), prepare=prepare)
    with pytest.raises(ValueError, match=message):
        made.check()


def test_what_is_no_function_prepares_nothing():
    with pytest.raises(ValueError, match="prepare is a function; got 3"):
        replace(slow_problem(), prepare=3)  # type: ignore[arg-type]


# ---------------------------------------------------------------- rows, columns, blocks


@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    of=st.integers(1, 8),
    by=st.sampled_from(["rows", "columns", "blocks"]),
)
def test_shards_cover_everything_once_and_evenly(shape, of, by):
    seen = np.zeros(shape, dtype=int)
    for index in range(of):
        seen[sim.shards(shape, index, of, by=by)] += 1
    assert (seen == 1).all()
    sizes = [seen[sim.shards(shape, index, of, by=by)].shape for index in range(of)]
    assert max(a for a, _ in sizes) - min(a for a, _ in sizes) <= 1
    assert max(b for _, b in sizes) - min(b for _, b in sizes) <= 1


def test_blocks_are_as_square_as_can_be():
    for shape, of, cell in (((12, 12), 4, (6, 6)), ((18, 12), 6, (6, 6)), ((100, 2), 4, (25, 2))):
        table = np.empty(shape)
        assert {table[sim.shards(shape, index, of, by="blocks")].shape for index in range(of)} == {cell}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (((4, 4), 0, 2, "letters"), "'rows', 'columns', 'blocks'; got by='letters'"),
        (((4,), 0, 2, "columns"), r"has that dimension; got the shape \(4,\)"),
        (((4, 4), 2, 2, "rows"), "from 0 to of-1; got index=2, of=2"),
    ],
)
def test_impossible_shards_are_refused(arguments, message: str):
    with pytest.raises(ValueError, match=message):
        sim.shards(*arguments)


def test_vertical_ranks_load_their_own_columns_only():
    """Horizontal ranks are data-parallel; vertical ones share the first Linear by its inputs."""
    from simulator.learning import Batches, Tensors

    made, whole = problem("mlp"), sim.stack(sim.TensorParallel(vertical=True))
    inputs = made.batch_of(1, 0)[0]
    for rank in range(3):
        me = sim.Rank(whole, rank, 3, made.model(), 1, made.rule)
        tensors = Tensors(me, made, 1, Batches(made, 1))
        tensors.compute(sim.Load())
        mine = tensors.read(sim.Act(0))
        assert torch.equal(mine, inputs[sim.shards(inputs.shape, rank, 3, by="columns")])
        assert me.model.blocks[0].input_bytes == made.model().blocks[0].input_bytes / 3


def test_vertical_ranks_need_features():
    with pytest.raises(ValueError, match="the first block begins with a Linear; it begins with a LookUp"):
        sim.simulate(sim.TensorParallel(vertical=True), problem("gpt"), sim.cluster("ideal", ranks=2), steps=1)
