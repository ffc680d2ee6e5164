"""What models bring along: tied and frozen parameters, different initial weights, dropout, buffers."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from cases import Case, problem
from cases.models import TIES
from common.runs import apart
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import lab
import simulator as sim
from simulator.problems.blocks import named_parameters, ties
from simulator.values import Grads, Params, Tied, overlap

STEPS, SEED = 3, 1


def virtual(strategy: sim.Order | sim.Layer | sim.Stack, name: str, ranks: int, steps: int = STEPS) -> sim.Run:
    """A run on a free network."""
    return sim.simulate(strategy, problem(name), sim.cluster("ideal", ranks=ranks), steps=steps, seed=SEED)


@cache
def plain(name: str, untied: bool = False) -> dict[str, np.ndarray]:
    """What a loop as in any tutorial learns, without this package's engine; perhaps with the parameters untied."""
    made = problem(name)
    blocks = made.build(SEED)
    if untied:
        blocks = [untie(block) for block in blocks]
    optimizer = made.rule.optimizer([parameter for _, parameter in named_parameters(blocks)])
    for step in range(STEPS):
        output, targets = made.batch_of(SEED, step)
        for block in blocks:
            output = block(output)
        optimizer.zero_grad()
        made.loss(output, targets).backward()
        made.rule.step(optimizer)
    return {name: parameter.detach().numpy() for name, parameter in named_parameters(blocks)}


def untie(block: nn.Module) -> nn.Module:
    """The same block with parameters of its own."""
    for name, parameter in list(block.named_parameters(recurse=False)):
        setattr(block, name, nn.Parameter(parameter.detach().clone()))
    return block


# ---------------------------------------------------------------- tied parameters


def test_a_tied_parameter_bears_the_name_of_its_first_block_alone():
    names = list(problem("tied").parameters(0))
    assert names == ["0.weight", "1.weight", "1.bias", "3.bias", "4.weight", "4.bias", "5.norm.weight", "5.norm.bias"]
    assert [block.parameters for block in problem("tied").model().blocks] == [66, 35, 0, 6, 42, 12]
    assert problem("tied").model().blocks[3].ties == (Tied(Params(1), 0, 30),)
    assert problem("tied").model().blocks[5].ties == (Tied(Params(0), 0, 66),)


def test_the_single_process_learns_what_a_plain_loop_learns_and_ties_matter():
    run = virtual(sim.Single(), "tied", 1)
    assert apart(run.parameters, plain("tied")) <= 1e-12
    shared = ["0.weight", "1.weight"]
    loose = plain("tied", untied=True)
    assert all(np.max(np.abs(loose[name] - run.parameters[name])) > 1e-3 for name in shared)


def test_a_block_that_occurs_twice_is_one():
    linear = nn.Linear(6, 6)
    made = sim.Problem([linear, nn.Tanh(), linear, nn.Linear(6, 4)], functional.mse_loss, problem("frozen").data)
    assert list(made.parameters(0)) == ["0.weight", "0.bias", "3.weight", "3.bias"]
    assert [len(tied) for tied in ties(made.build(0))] == [0, 0, 2, 0]
    run = [
        sim.simulate(strategy, made, sim.cluster("ideal", ranks=ranks), steps=2).parameters
        for strategy, ranks in ((sim.Single(), 1), (sim.Pipeline("1f1b", 2), 2), (sim.Sharded(3), 2))
    ]
    assert apart(run[0], run[1]) <= 1e-6 and apart(run[0], run[2]) <= 1e-6


def test_what_is_tied_may_share_memory_with_its_block():
    tie = Tied(Params(1), 0, 30)
    assert overlap(tie, Params((0, 1))) and not overlap(tie, Grads(1)) and not overlap(tie, Params(0))
    assert overlap(tie.gradient, Grads(1)) and str(tie) == "Params(1)[0:30]"
    with pytest.raises(ValueError, match=r"a range of those of one block; got Params\(0, 1\)\[0:3\]"):
        Tied(Params((0, 1)), 0, 3)


@settings(max_examples=15, deadline=None)
@given(
    microbatches=st.integers(1, 4),
    stages=st.integers(1, 4),
    schedule=st.sampled_from(["gpipe", "1f1b", "zb-h1", "naive"]),
    owners=st.lists(st.integers(0, 3), min_size=1, max_size=3),
)
def test_any_ties_on_any_stages_equal_the_single_process(microbatches, stages, schedule, owners):
    """Block i of six has its own weight, or an earlier block's."""

    def blocks() -> list[nn.Module]:
        found: list[nn.Module] = [nn.Linear(6, 6) for _ in range(6)]
        for place, owner in enumerate(owners):
            found[5 - place].weight = found[owner].weight  # type: ignore[assignment]
        return found

    made = replace(problem("frozen"), blocks=blocks, loss=lambda o, t: functional.mse_loss(o[:, :4], t))
    strategy = sim.Pipeline(schedule, microbatches, stages=stages)
    ours, truth = (
        sim.simulate(one, made, sim.cluster("ideal", ranks=ranks), steps=2).parameters
        for one, ranks in ((strategy, stages), (sim.Single(), 1))
    )
    assert apart(ours, truth) <= 1e-12


def test_without_a_flush_ties_across_stages_are_refused():
    with pytest.raises(ValueError, match=r"no microbatch is under way; rank 0.*a pipeline that is flushed"):
        virtual(sim.PipeDream(), "tied", 2)


def test_blocks_that_ranks_split_are_not_tied():
    with pytest.raises(ValueError, match=r"block 3 is tied to block 1: untie them, or use"):
        virtual(sim.TensorParallel(), "tied", 2)


def test_an_order_that_completes_the_first_block_early_is_refused():
    order = [[("F", 0), ("F", 0, 1), ("I", 0, 1), ("B", 0), ("W", 0, 1)]]
    with pytest.raises(ValueError, match=r"complete when their first block has run backward; on rank 0 block 3"):
        virtual(sim.Pipeline(order, 1, placement="v"), "tied", 1)


@pytest.mark.parametrize("row", [row for row in TIES if row.id.startswith(("pipeline-1f1b", "sharded-3"))], ids=str)
def test_the_timed_program_sends_what_the_learning_one_sends(row: Case):
    cluster = sim.cluster("ideal", ranks=2)
    timed, learned = (
        sim.simulate(row.strategy, problem("tied"), cluster, steps=2, learn=learn) for learn in (False, True)
    )
    assert timed.bytes_sent == learned.bytes_sent


# ---------------------------------------------------------------- frozen parameters, different beginnings


@pytest.mark.parametrize(
    "strategy",
    [sim.Single(), sim.DataParallel(), sim.Sharded(1), sim.Sharded(3), sim.Pipeline("zb-h1", 2), sim.TensorParallel()],
    ids=str,
)
def test_frozen_parameters_stay_even_under_weight_decay(strategy: sim.Order | sim.Layer):
    decaying = sim.rules.Momentum(0.1, weight_decay=0.1)
    ranks = 1 if isinstance(strategy, sim.Single) else 2
    run = virtual(replace(strategy, rule=decaying), "frozen", ranks)
    before = problem("frozen").parameters(SEED)
    moved = {name: float(np.max(np.abs(run.parameters[name] - before[name]))) for name in before}
    frozen = {"0.0.weight", "0.0.bias", "2.weight"}
    assert {name for name, distance in moved.items() if distance == 0} == frozen


class Own(nn.Linear):
    """A layer whose weights depend on who makes it, as with a seed per rank."""

    def __init__(self) -> None:
        super().__init__(6, 4)
        if torch.distributed.is_initialized():
            self.weight.data += torch.distributed.get_rank()


def test_ranks_that_begin_differently_learn_something_else_unless_told():
    made = sim.Problem(lambda: [Own()], functional.mse_loss, problem("frozen").data, dtype="float64")
    expected = sim.simulate(sim.Single(), made, sim.cluster("ideal", ranks=1), steps=STEPS, seed=SEED)
    told, untold = (
        lab.execute(sim.DataParallel(broadcast=broadcast), made, ranks=2, steps=STEPS, seed=SEED)
        for broadcast in (True, False)
    )
    assert apart(told.parameters, expected.parameters) <= 1e-12
    assert "replicas" in untold.notes and "replicas" not in told.notes


# ---------------------------------------------------------------- dropout


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_sharded_ranks_draw_the_masks_of_data_parallel_ones(stage: int):
    ours, theirs = (virtual(strategy, "dropping", 2) for strategy in (sim.Sharded(stage), sim.DataParallel()))
    assert apart(ours.parameters, theirs.parameters) <= 1e-12
    assert apart(ours.parameters, virtual(sim.Single(), "dropping", 1).parameters) > 1e-6


def test_stages_draw_the_masks_of_their_microbatches_whatever_the_schedule():
    runs = [
        virtual(sim.Pipeline(schedule, 4), "dropping", ranks)
        for schedule, ranks in (("gpipe", 2), ("1f1b", 3), ("zb-h1", 4), ("interleaved", 2), ("zbv", 2))
    ]
    runs.append(virtual(sim.Single(microbatches=4), "dropping", 1))
    assert all(apart(run.parameters, runs[0].parameters) <= 1e-12 for run in runs)


# ---------------------------------------------------------------- buffers


AGREEMENTS = [
    (sim.Single(), 1),
    (sim.DataParallel(), 2),
    (sim.stack(sim.DataParallel(), sim.SyncBuffers()), 2),
    (sim.stack(sim.SyncBuffers("mean"), sim.Sharded(3)), 2),
    (sim.Pipeline("1f1b", 2), 2),
    (sim.stack(sim.Pipeline("1f1b", 2), sim.DataParallel(), sim.SyncBuffers("mean")), 4),
]
"""Strategies, and on how many ranks."""
NAMES = [f"{block}.{name}" for block in ("1", "3.1") for name in ("running_mean", "running_var")]


@pytest.mark.parametrize("strategy, ranks", AGREEMENTS, ids=str)
def test_both_clocks_keep_the_same_buffers(strategy: sim.Order | sim.Stack, ranks: int):
    ours = virtual(strategy, "normed", ranks)
    theirs = lab.execute(strategy, problem("normed"), ranks=ranks, steps=STEPS, seed=SEED)
    assert list(ours.buffers) == list(theirs.buffers) == NAMES
    assert apart(ours.buffers, theirs.buffers) <= 1e-12
    assert ours.buffers["1.running_mean"].any() and not (ours.buffers["1.running_var"] == 1).any()


def one_step(how: str | None, ranks: int = 2) -> dict[str, np.ndarray]:
    """The buffers after one step of data parallelism."""
    layers = (sim.SyncBuffers(how),) if how else ()
    return virtual(sim.stack(sim.DataParallel(), *layers), "normed", ranks, steps=1).buffers


def test_the_mean_of_equal_slices_is_the_mean_of_the_batch():
    """Of the first normalised block, whose input does not depend on other norms."""
    alone = virtual(sim.Single(), "normed", 1, steps=1).buffers["1.running_mean"]
    assert np.allclose(one_step("mean")["1.running_mean"], alone, atol=1e-15)
    assert not np.allclose(one_step(None)["1.running_mean"], alone, atol=1e-3)


def test_ranks_keep_their_own_buffers_or_agree():
    """Looked at rank by rank, not only as the first one keeps them."""
    kept = {how: held(how) for how in (None, "broadcast", "mean")}
    assert apart(*kept[None]) > 1e-3
    assert apart(*kept["broadcast"]) == 0 and apart(kept["broadcast"][0], kept[None][0]) == 0
    assert apart(*kept["mean"]) <= 1e-15
    middle = {name: (kept[None][0][name] + kept[None][1][name]) / 2 for name in kept[None][0]}
    assert apart(kept["mean"][0], middle) <= 1e-15


def held(how: str | None) -> list[dict[str, np.ndarray]]:
    """The buffers of each of two ranks after a step."""
    from simulator.learning import Batches, Tensors
    from simulator.virtual import Machine

    whole = sim.stack(sim.DataParallel(), *((sim.SyncBuffers(how),) if how else ()))
    made, cluster = problem("normed"), sim.cluster("ideal", ranks=2)
    members = [sim.Rank(whole, rank, 2, made.model(), 1, made.rule) for rank in range(2)]
    tensors = [Tensors(me, made, SEED, Batches(made, SEED)) for me in members]
    Machine(whole, members, cluster, tensors=tensors).run()
    return [mine.buffers() for mine in tensors]


def test_buffers_are_evaluated_with_and_saved(tmp_path):
    run = virtual(sim.Single(), "normed", 1)
    made = problem("normed")
    assert made.evaluate({**run.parameters, **run.buffers}) != made.evaluate(run.parameters)
    run.save(tmp_path / "a.run")
    again = sim.Run.load(tmp_path / "a.run")
    assert again == run and apart(again.buffers, run.buffers) == 0
    assert replace(run, buffers={}) != run


class Counts(nn.Module):
    """Replaces its buffer by a new tensor at every call, and depends on it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A little more of it each time."""
        self.seen = self.seen + 1
        return x * (1 + self.seen / 10)


def test_a_buffer_that_is_replaced_is_kept_all_the_same():
    made = sim.Problem([nn.Linear(6, 4), Counts()], functional.mse_loss, problem("frozen").data, dtype="float64")
    assert made.traits.keeps == {1}
    strategy = sim.stack(sim.DataParallel(), sim.SyncBuffers("mean"))
    run = sim.simulate(strategy, made, sim.cluster("ideal", ranks=2), steps=4)
    assert run.buffers["1.seen"].tolist() == [4]


def test_ranks_that_split_blocks_keep_no_buffers():
    blocks = [nn.Linear(6, 4), nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False))]
    made = sim.Problem(blocks, functional.mse_loss, problem("frozen").data)
    with pytest.raises(ValueError, match=r"keep no buffers.*those of blocks \[1\]"):
        sim.simulate(sim.TensorParallel(), made, sim.cluster("ideal", ranks=2))


def test_another_way_to_agree_is_refused():
    with pytest.raises(ValueError, match="one of 'broadcast', 'mean'; got how='sum'"):
        sim.SyncBuffers("sum")
