"""What is worked out once for ranks, or groups of ranks, that are alike is what each of them would get by itself."""

from __future__ import annotations

import pytest
from common.saying import G0, say
from test_folding import BIG, same

import simulator as sim
from simulator import Load, Recv
from simulator.experiment import versions
from simulator.members import FEW, all_ranks
from simulator.rank import Rank

MODEL = sim.Model.of_times(blocks=24, parameters=24000, activation_bytes=64, batch=6000).in_parts(units=48)
RANKS = 96
STRATEGIES = (
    sim.DataParallel(),
    sim.Sharded(3),
    sim.Hybrid(data=4, tensor=6, pipeline=4, microbatches=4),
    sim.Hybrid(data=12, tensor=2, pipeline=4, microbatches=4, schedule="interleaved", chunks=2, zero=1),
    sim.Hybrid(data=12, context=8),
    sim.stack(sim.Pipeline("zbv", microbatches=8, stages=8), sim.DataParallel()),
    sim.stack(sim.Hybrid(data=8, tensor=12), sim.MixedPrecision()),
    sim.stack(sim.ParameterServer(servers=3), sim.DataParallel(replicas=2)),
    sim.stack(sim.Pipeline(microbatches=2, stages=2), sim.DataParallel(), sim.Shares(tuple(range(1, 49)))),
    sim.BytePS(helpers=5),
    sim.LocalSGD(period=2),
)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_ranks_made_together_are_those_made_one_by_one(strategy: sim.Order | sim.Layer | sim.Stack):
    whole = sim.stack(strategy)
    together = all_ranks(whole, RANKS, MODEL, steps=3)
    assert len(together) == RANKS > FEW
    for rank, me in enumerate(together):
        alone = Rank(whole, rank, RANKS, MODEL, 3)
        assert me.model is alone.model
        own = {name: value for name, value in vars(me).items() if name != "model"}
        assert own == {name: value for name, value in vars(alone).items() if name != "model"}


def test_what_ranks_keep_is_their_own():
    first, *others = all_ranks(sim.stack(sim.DataParallel()), FEW + 1, MODEL, steps=1)
    first.memory["told"], first.versions[sim.Params(0)] = 1, 2
    assert not any(other.memory or other.versions for other in others)


@pytest.mark.parametrize("strategy", [sim.Hybrid(data=4, tensor=8), sim.Hybrid(data=8, tensor=2, pipeline=2)], ids=str)
def test_groups_on_unlike_machines_are_planned_apart(strategy: sim.Stack):
    """They lie alike, but their links are not of one kind."""
    same(strategy, BIG, sim.cluster("mixed", nodes=4), steps=1, batch=64)


def test_what_a_check_would_find_is_shown_with_the_grid_when_a_machine_finds_it():
    wrong = say((Load(), Recv(G0, source=1)), (Load(),))
    with pytest.raises(sim.ProgramError, match="deadlock") as caught:
        sim.simulate(wrong, sim.Model.of_times(blocks=1), sim.cluster("ideal", ranks=2), steps=1)
    assert ">> Recv Grads(0) from world 1" in str(caught.value)


def test_versions_are_everybody_s_own():
    versions()["python"] = "none"
    assert versions()["python"] != "none"
