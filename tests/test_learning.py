"""What ranks do to tensors: chance, uneven slices, replicas that drift apart, and wrong programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn

import lab
import simulator as sim
from simulator import Act, Backward, Compute, Forward, Grads, Instruction, Load, Loss, Measure, Named, Reduce, Update
from simulator.values import Params


def data(seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Nine samples, which neither 2 nor 4 workers can share evenly."""
    inputs = torch.randn(9, 4)
    return inputs, inputs.sum(1, keepdim=True)


def own(*blocks: nn.Module, **more) -> sim.Problem:
    """A problem of these blocks, in double precision."""
    return sim.Problem(list(blocks), more.pop("loss", nn.functional.mse_loss), data, dtype="float64", **more)


def simulated(strategy, problem: sim.Problem, ranks: int, seed: int = 0) -> sim.Run:
    """Three steps on a free network."""
    return sim.simulate(strategy, problem, sim.cluster("ideal", ranks=ranks), steps=3, seed=seed)


def same(a: sim.Run, b: sim.Run) -> bool:
    """Whether two runs learned the same, to 1e-12."""
    return all(np.allclose(a.parameters[name], b.parameters[name], rtol=0, atol=1e-12) for name in a.parameters)


# ---------------------------------------------------------------- chance


def dropping() -> sim.Problem:
    """One block draws."""

    def blocks() -> list[nn.Module]:
        return [nn.Linear(4, 8), nn.Sequential(nn.Tanh(), nn.Dropout(0.5)), nn.Linear(8, 1)]

    return sim.Problem(blocks, nn.functional.mse_loss, data, dtype="float64")


def test_what_blocks_draw_depends_on_the_seed_alone():
    torch.manual_seed(1)
    first, state = simulated(sim.DataParallel(), dropping(), 2), torch.get_rng_state()
    torch.manual_seed(2)
    assert first == simulated(sim.DataParallel(), dropping(), 2)
    assert not same(first, simulated(sim.DataParallel(), dropping(), 2, seed=1))
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())


def test_what_blocks_draw_does_not_depend_on_who_computes():
    problem = dropping()
    assert same(simulated(sim.Single(), problem, 1), simulated(sim.Pipeline("gpipe", microbatches=1), problem, 3))


def test_both_clocks_draw_the_same():
    problem, strategy = dropping(), sim.DataParallel()
    assert same(simulated(strategy, problem, 2), lab.execute(strategy, problem, ranks=2, steps=3, progress=False))


def test_blocks_may_write_over_what_enters_them():
    careful = own(nn.ReLU(), nn.Linear(4, 8), nn.Tanh(), nn.ReLU(), nn.Linear(8, 1))
    hasty = own(nn.ReLU(inplace=True), *careful.blocks[1:3], nn.ReLU(inplace=True), careful.blocks[4])
    for strategy, ranks in [(sim.Single(), 1), (sim.Pipeline("1f1b", microbatches=2), 2)]:
        assert same(simulated(strategy, careful, ranks), simulated(strategy, hasty, ranks))


def test_a_block_that_minds_nothing_stops_the_gradient():
    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones_like(x)

    problem = own(nn.Linear(4, 4), Constant(), nn.Linear(4, 1))
    run = simulated(sim.Single(), problem, 1)
    assert (run.parameters["0.weight"] == problem.parameters(0)["0.weight"]).all()
    assert (run.parameters["2.weight"] != problem.parameters(0)["2.weight"]).all()


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("strategy", [sim.ParameterServer(mode="async"), sim.ParameterServer(mode="ssp", bound=0)])
def test_a_row_is_the_worker_s_own_mean(strategy: sim.Order):
    bowl = sim.problem("quadratic", dtype="float64", noise=2.0, start=2.0, batch=9)
    firsts = {row.worker: row.loss for row in reversed(simulated(strategy, bowl, 5).losses)}
    assert firsts == pytest.approx(dict.fromkeys(range(1, 5), 0.5 * 4 * 1.1), rel=1e-12)


@pytest.mark.parametrize("ranks", [3, 5])
def test_the_mean_does_not_depend_on_who_was_given_up(ranks: int):
    bowl = sim.problem("quadratic", dtype="float64", start=2.0, batch=9)
    run = simulated(sim.ParameterServer(backups=1), bowl, ranks)
    assert run.losses[0] == pytest.approx(2.2, rel=1e-12)


# ---------------------------------------------------------------- replicas


@dataclass(frozen=True)
class Forgetful(sim.Order):
    """Data parallel without the AllReduce."""

    axis = "data"

    def share(self, me: sim.Rank) -> tuple[int, int]:
        return me.at("data"), me.size("data")

    def program(self, me: sim.Rank) -> Iterable[Instruction]:
        last = len(me.blocks)
        for _ in me.steps():
            yield Load()
            yield from (Forward(block) for block in me.blocks)
            yield Loss(last)
            yield from (Backward(block) for block in reversed(me.blocks))
            yield Update(Params(me.blocks))


def test_replicas_that_drift_apart_are_noted_on_both_clocks():
    problem = own(nn.Linear(4, 1))
    runs = [simulated(Forgetful(), problem, 2), lab.execute(Forgetful(), problem, ranks=2, steps=3, progress=False)]
    for run in runs:
        assert "differ by up to" in run.notes["replicas"] and run.notes["replicas"].endswith("AllReduce missing?")


def test_replicas_that_agree_are_not_noted():
    for strategy, ranks in [(sim.DataParallel(), 3), (sim.ParameterServer(mode="async"), 3), (sim.Single(), 1)]:
        assert simulated(strategy, own(nn.Linear(4, 1)), ranks).notes == {}


# ---------------------------------------------------------------- wrong programs and problems


@dataclass(frozen=True)
class Says(sim.Order):
    """A program of these instructions."""

    what: tuple[Instruction, ...] = ()
    part: tuple[int, int] | None = (0, 1)
    mine: Callable[[], tuple[int, ...]] = field(default=lambda: (0, 1))

    def share(self, me: sim.Rank) -> tuple[int, int] | None:
        return self.part

    def blocks(self, me: sim.Rank) -> tuple[int, ...]:
        return self.mine()

    def program(self, me: sim.Rank) -> Iterable[Instruction]:
        for _ in me.steps():
            yield from self.what


def two(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """More than was asked for."""
    return x, x


FORTH = (Load(), Forward(0), Forward(1))


@pytest.mark.parametrize(
    "what, message",
    [
        ((Load(), Loss(2)), r"rank 0 holds no Act\(2, mb 0\) in step 0: nothing has written it"),
        ((*FORTH, Backward(1)), r"holds no ActGrad\(2, mb 0\)"),
        ((*FORTH, Loss(2), Backward(0)), r"holds no ActGrad\(1, mb 0\)"),
        ((Load(), Backward(1)), "Backward 1 mb0 comes after a Forward of its own"),
        ((Compute(two, (Params(0),), (Named("a"),)),), "each of its 1 writes; Compute two gave Tensor, Tensor"),
        ((Compute(print, (), (Named("a"),)),), "Compute print gave none"),
        ((Load(), Compute(list, (Act(0),), (Grads(0),))), "each of its 1 writes"),
    ],
)
def test_programs_that_take_what_is_not_there(what: tuple[Instruction, ...], message: str):
    with pytest.raises(ValueError, match=message):
        simulated(Says(what), own(nn.Linear(4, 3), nn.Linear(3, 1)), 1)


def twice(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One tensor under two names."""
    found = x * 2
    return found, found


def test_what_a_function_gives_twice_is_two_values():
    a, b = Named("a"), Named("b")
    change = Reduce(a, a, scale=-1.0)
    seen = (Measure("a", torch.norm, (a,)), Measure("b", torch.norm, (b,)))
    text = (Compute(twice, (Params(0),), (a, b)), change, *seen)
    run = simulated(Says(text), own(nn.Linear(4, 3), nn.Linear(3, 1)), 1)
    numbers = {name: [sample.value for sample in run.samples if sample.name == name] for name in "ab"}
    assert numbers["a"] == [0.0] * 3 and min(numbers["b"]) > 0


def test_only_a_rank_with_a_share_loads():
    with pytest.raises(ValueError, match=r"with a share of the data does Load mb0; rank 0 has none; let share\(me\)"):
        simulated(Says(FORTH, part=None), own(nn.Linear(4, 3), nn.Linear(3, 1)), 1)


@pytest.mark.parametrize("wrong", [Forward(1), Update(Params(1)), Update(Params((0, 1)))], ids=str)
def test_a_rank_computes_its_own_blocks(wrong: Instruction):
    with pytest.raises(ValueError, match=r"rank 0 has the blocks \(0,\); got (Forward 1|Params\()"):
        simulated(Says((Load(), Forward(0), wrong), mine=lambda: (0,)), own(nn.Linear(4, 3), nn.Linear(3, 1)), 1)


def test_a_value_of_several_blocks_names_neighbours_among_those_of_the_rank():
    problem = own(nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 1))
    simulated(Says((Update(Params((0, 2))),), mine=lambda: (0, 2)), problem, 1)
    with pytest.raises(ValueError, match=r"neighbours in ascending order, of those that the rank has \(\(0, 1, 2\)\)"):
        simulated(Says((Update(Params((0, 2))),), mine=lambda: (0, 1, 2)), problem, 1)


@pytest.mark.parametrize(
    "problem, message",
    [
        (own(nn.Linear(4, 1), loss=lambda o, t: ((o - t) ** 2).sum()), "use reduction='mean'"),
        (own(nn.Linear(4, 1), loss=lambda o, t: (o - t) ** 2), "one element"),
        (own(nn.Linear(4, 3), nn.Linear(4, 1)), "block 1 cannot take"),
        (own(nn.Flatten(), nn.Tanh()), "has one that learns"),
    ],
)
def test_a_problem_is_checked_before_it_is_learned(problem: sim.Problem, message: str):
    with pytest.raises(ValueError, match=message):
        simulated(sim.Single(), problem, 1)


@dataclass(frozen=True)
class AverageACopy(sim.Order):
    """Copies the parameters into a buffer of its own, and averages that."""

    axis = "data"

    def share(self, me):
        return me.at("data"), me.size("data")

    def program(self, me):
        for _ in me.steps():
            yield sim.Copy(sim.Params(me.blocks), sim.Named("kept"))
            yield sim.AllReduce(sim.Named("kept"), over="data")


def test_named_buffers_have_the_same_bytes_on_both_clocks():
    problem, cluster = sim.problem("digits-mlp"), sim.cluster("ideal", ranks=2)
    expected = [2 * one for one in sim.theory.data_parallel_bytes(2, 4 * problem.model().parameters)]
    timed = sim.simulate(AverageACopy(), problem, cluster, steps=2, learn=False)
    learned = sim.simulate(AverageACopy(), problem, cluster, steps=2)
    wall = lab.execute(AverageACopy(), problem, ranks=2, steps=2)
    assert timed.bytes_sent == learned.bytes_sent == wall.bytes_sent == expected


def test_a_program_that_forgets_its_steps_is_told():
    class Once(sim.Order):
        def program(self, me):
            yield sim.Load()

    with pytest.raises(sim.ProgramError, match=r"goes through me.steps\(\); that of rank 0 made 0 of 3"):
        sim.simulate(Once(), sim.Model.of_times(blocks=1), sim.cluster("ideal", ranks=1), steps=3)
