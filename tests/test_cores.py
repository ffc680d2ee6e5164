"""Ranks that share cores: closed forms of processor sharing, and work that is conserved."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator.cores import Cores
from simulator.rank import Rank
from simulator.spans import kind
from simulator.virtual import Machine


@dataclass(frozen=True)
class Each(sim.Order):
    """Every rank computes so many seconds, then all meet."""

    axis = "rank"
    seconds: tuple[float, ...] = ()

    def program(self, me):
        for _ in me.steps():
            yield sim.Compute(len, seconds=self.seconds[me.rank])
            yield sim.Barrier()


def own(instruction: sim.Instruction, me: Rank) -> float:
    """A Compute says itself how long it takes."""
    return getattr(instruction, "seconds", 0.0)


def ran(order: sim.Order, ranks: int, cores: int, seconds=own, copying: float = 0.0, cluster=None) -> Machine:
    """A machine of so many ranks on so many cores, run for one step."""
    whole, model = sim.stack(order), sim.Model.of_times(blocks=ranks, parameters=100 * ranks)
    members = [Rank(whole, rank, ranks, model, 1) for rank in range(ranks)]
    machine = Machine(whole, members, cluster or sim.cluster("ideal", ranks=ranks))
    Cores(machine, cores, seconds, copying)
    machine.run()
    return machine


def end_of(machine: Machine) -> float:
    return max(span.end for span in machine.spans)


@pytest.mark.parametrize("ranks, cores", [(1, 1), (2, 2), (3, 2), (4, 2), (4, 1), (4, 8)])
def test_equal_computations_take_ranks_over_cores_times_as_long(ranks: int, cores: int):
    assert end_of(ran(Each((2.0,) * ranks), ranks, cores)) == pytest.approx(2.0 * max(1, ranks / cores), rel=1e-12)


def test_who_computes_longer_has_a_core_to_itself_in_the_end():
    machine = ran(Each((1.0, 2.0, 5.0)), 3, 1)
    ends = sorted(span.end for span in machine.spans if kind(span.instruction) == "Compute")
    # Three share a core until each has had 1 s, then two until both have had 2 s.
    assert ends == pytest.approx([3.0, 5.0, 8.0], rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(seconds=st.lists(st.floats(0.0, 10.0), min_size=1, max_size=6), cores=st.integers(1, 4))
def test_work_is_conserved_and_nobody_is_faster_than_alone(seconds: list[float], cores: int):
    machine = ran(Each(tuple(seconds)), len(seconds), cores)
    end = end_of(machine)
    assert end >= max(max(seconds), sum(seconds) / cores) * (1 - 1e-9)
    assert end <= sum(seconds) * (1 + 1e-9)
    if cores >= len(seconds):
        assert end == pytest.approx(max(seconds), rel=1e-9)


def test_a_naive_pipeline_needs_one_core_only():
    order = sim.Pipeline("naive", microbatches=1)

    def second(instruction: sim.Instruction, me: Rank) -> float:
        return 1.0 if kind(str(instruction)) in ("Forward", "Backward") else 0.0

    assert end_of(ran(order, 4, 1, second)) == pytest.approx(8.0, rel=1e-12)
    assert end_of(ran(order, 4, 4, second)) == pytest.approx(8.0, rel=1e-12)


@dataclass(frozen=True)
class Beside(sim.Order):
    """Both ranks compute a second while an all-reduce moves its bytes."""

    axis = "rank"

    def program(self, me):
        for _ in me.steps():
            yield sim.Start(sim.AllReduce(sim.Grads(me.blocks)), on="data")
            yield sim.Compute(len, seconds=1.0)
            yield sim.Wait()


@pytest.mark.parametrize("cores, copying, expected", [(4, 1.0, 1.0), (2, 1.0, 1.5), (1, 1.0, 2.5), (2, 0.0, 1.0)])
def test_copying_takes_cores_from_computing(cores: int, copying: float, expected: float):
    """800 bytes take half a second, with two cores: together with two seconds of maths that is 3 s of cores."""
    cluster = sim.Cluster.flat(2, bandwidth=1600.0)
    machine = ran(Beside(), 2, cores, copying=copying, cluster=cluster)
    assert end_of(machine) == pytest.approx(expected, rel=1e-9)


def test_starting_and_waiting_take_time_of_their_own():
    whole, model = sim.stack(Beside()), sim.Model.of_times(blocks=2, parameters=200)
    members = [Rank(whole, rank, 2, model, 1) for rank in range(2)]
    machine = Machine(whole, members, sim.cluster("ideal", ranks=2))
    Cores(machine, 2, own, start=0.25, wait=0.5)
    machine.run()
    assert machine.states[0].main.clock == pytest.approx(0.25 + 1.0 + 0.5, rel=1e-12)


def test_a_number_of_cores_is_whole():
    with pytest.raises(ValueError, match="count"):
        ran(Each((1.0,)), 1, 0)
