"""A new strategy costs one file and one row: here is one of each, and every law holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import test_laws
from cases import Case
from cases.table import alone

import simulator as sim
from simulator import Grads, Params, Send, Update, theory

# ---------------------------------------------------------------- the file


@dataclass(frozen=True)
class PassedOn(sim.Layer):
    """Gradients are added up along a chain of ranks, and their mean is handed back along it."""

    axis: ClassVar[str | None] = "chain"
    looks_after: ClassVar[tuple[type[sim.Value], ...]] = (Grads, Params)

    def share(self, me: sim.Rank, share: tuple[int, int] | None) -> tuple[int, int] | None:
        return None if share is None else (me.at("chain"), me.size("chain"))

    def rules(self, me: sim.Rank) -> sim.Rules:
        at, last, arrived = me.at("chain"), me.size("chain") - 1, sim.Named("arrived")

        def backward(backward: sim.Backward) -> sim.Program:
            yield backward

        def update(update: Update) -> sim.Program:
            total = Grads(me.blocks)
            if at > 0:
                yield sim.Recv(total, source=at - 1, over="chain", into=arrived)
                yield sim.Reduce(total, arrived)
            if at < last:
                yield Send(total, to=at + 1, over="chain")
                yield sim.Recv(total, source=at + 1, over="chain")
            else:
                yield sim.Reduce(total, total, scale=1 / (last + 1) - 1)
            if at > 0:
                yield Send(total, to=at - 1, over="chain")
            yield update

        return {sim.Backward: backward, Update: update}


# ---------------------------------------------------------------- the row


def there_and_back(model: sim.Model, ranks: int) -> list[float]:
    """The ends of the chain send once, those between twice."""
    size = float(model.parameters * model.parameter_bytes)
    return [size * ((rank > 0) + (rank < ranks - 1)) for rank in range(ranks)]


ROW = Case("passed-on", PassedOn(), (1, 2, 3, 4), there_and_back, alone)


# ---------------------------------------------------------------- the laws

LAWS: tuple[Callable[..., Any], ...] = (
    test_laws.test_real_ranks_equal_the_single_process,
    test_laws.test_virtual_ranks_equal_the_single_process,
    test_laws.test_both_clocks_learn_the_same,
    test_laws.test_both_clocks_send_the_same_bytes,
    test_laws.test_what_is_sent_is_what_theory_says,
    test_laws.test_both_clocks_run_the_same_instructions_in_the_same_order,
    test_laws.test_programs_are_valid,
    test_laws.test_what_is_listed_is_what_runs,
    test_laws.test_without_communication_time_is_the_closed_form,
    test_laws.test_no_span_overlaps_another_on_one_stream,
    test_laws.test_work_is_conserved,
)


@pytest.mark.parametrize("ranks", ROW.ranks)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__.removeprefix("test_"))
def test_a_new_strategy_obeys_every_law(law: Callable[..., Any], ranks: int):
    law(ROW, ranks)


def test_a_new_strategy_stacks_with_the_others():
    """Nobody has told the pipeline of it, nor it of the pipeline."""
    problem, single = sim.problem("digits-mlp", dtype="float64", batch=24), sim.cluster("ideal", ranks=1)
    stacked = sim.stack(sim.Pipeline("1f1b", microbatches=2, stages=2), PassedOn())
    run = sim.simulate(stacked, problem, sim.cluster("ideal", ranks=6), steps=3)
    truth = sim.simulate(sim.Single(), problem, single, steps=3)
    assert test_laws.apart(run.parameters, truth.parameters) <= 1e-9


def test_a_layer_that_misses_a_kind_of_gradient_is_told():
    """It has no rule for BackwardWeight, which makes gradients: the zero-bubble schedule shows that."""
    stacked = sim.stack(sim.Pipeline("zb-h1", microbatches=4, stages=2), PassedOn())
    with pytest.raises(ValueError, match="PassedOn has no rule for BackwardWeight, which makes values"):
        sim.validate(stacked, ranks=4)


def test_it_is_slower_than_a_ring():
    """2(n-1) messages of all gradients, one after another, against 2(n-1) of an n-th of them."""
    model = sim.Model.of_times(blocks=1, forward=0.0, backward=0.0, parameters=1000)
    cluster = sim.Cluster.flat(ranks=4, bandwidth=1e3, latency=0.0)
    chain, ring = (
        sim.simulate(layer, model, cluster, steps=1).makespan for layer in (PassedOn(), sim.DataParallel())
    )
    assert chain == pytest.approx(2 * 3 * 4000 / 1e3) and ring == pytest.approx(theory.ring_all_reduce(4, 4000, 1e3))
