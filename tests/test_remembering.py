"""What is computed once: results by their arguments, and what a cluster has looked up."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

import simulator as sim
from simulator.remembering import remembered


class Counted:
    """A function that counts its calls."""

    def __init__(self, most: int):
        self.calls = 0
        self.of = remembered(most)(self._of)

    def _of(self, *arguments: object) -> int:
        self.calls += 1
        return sum(map(len, arguments))  # type: ignore[arg-type]


def test_equal_arguments_are_computed_once_and_the_oldest_are_forgotten():
    counted = Counted(most=2)
    assert [counted.of(text) for text in ("a", "a", "bb", "a", "ccc", "bb")] == [1, 1, 2, 1, 3, 2]
    assert counted.calls == 4


def test_arguments_without_a_hash_are_computed_anew():
    counted = Counted(most=2)
    assert [counted.of("a", [1, 2]), counted.of("a", [1, 2])] == [3, 3] and counted.calls == 2


def test_errors_of_the_function_are_its_own():
    counted = Counted(most=2)
    for _ in range(2):
        with pytest.raises(TypeError, match="len"):
            counted.of(5)
    assert counted.calls == 2


def test_arguments_are_hashed_once():
    """Of a model that takes as long as much else."""

    class Slow:
        hashed = 0

        def __hash__(self) -> int:
            self.hashed += 1
            return 1

        def __len__(self) -> int:
            return 1

    counted, slow = Counted(most=2), Slow()
    assert [counted.of(slow) for _ in range(3)] == [1, 1, 1]
    assert slow.hashed == 3 and counted.calls == 1


def test_orders_with_lists_in_their_fields_run():
    @dataclass(frozen=True)
    class Listed(sim.Order):
        """One rank, with a knob that has no hash."""

        seconds: list[float]

        def program(self, me: sim.Rank) -> sim.Program:
            for _ in me.steps():
                for seconds in self.seconds:
                    yield sim.Compute(print, seconds=seconds)

    strategy, model = Listed([1.0, 2.0]), sim.Model.of_times(blocks=1)
    assert sim.simulate(strategy, model, sim.cluster("ideal", ranks=1), steps=2).makespan == 6.0
    assert sim.memory(strategy, model, ranks=1)[0].most.total == 0.0


def test_what_a_cluster_has_looked_up_is_its_own():
    """A cluster is its wiring and its devices; nothing else is open to be changed."""
    cluster = sim.Cluster.flat(ranks=4, bandwidth=1e9)
    cluster.route(0, 1)
    assert not [name for name, value in vars(cluster).items() if isinstance(value, dict) and name[0] != "_"]
