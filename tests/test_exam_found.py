"""What an outside examiner found: slips that were taken, and large plans that were simulated rank by rank."""

import networkx as nx
import pytest

import simulator as sim

DEEP = sim.transformer(layers=16, hidden=2048, heads=16, sequence=512, vocab=8000)


@pytest.mark.parametrize("data, tensor, pipeline", [(12, 8, 4), (9, 8, 2), (16, 4, 2)])
def test_trees_that_share_links_with_messages_fold(data: int, tensor: int, pipeline: int) -> None:
    """Machines in the middle of a tree send more than those at its ends: they are told apart, and the others fold."""
    strategy = sim.Hybrid(data=data, tensor=tensor, pipeline=pipeline, microbatches=6)
    cluster = sim.cluster("dgx-h100", ranks=data * tensor * pipeline, algorithm="tree")
    knobs = dict(steps=2, batch=data * 6)
    few, all_of_them = (sim.simulate(strategy, DEEP, cluster, fold=fold, **knobs) for fold in (True, False))
    assert len(few.stands_for) < cluster.ranks / 10 and "not folded" not in few.notes
    assert few.makespan == pytest.approx(all_of_them.makespan, rel=1e-9)
    assert few.bytes_sent == pytest.approx(all_of_them.bytes_sent, rel=1e-9)
    assert few.exposed_communication == pytest.approx(all_of_them.exposed_communication, rel=1e-9)


@pytest.mark.parametrize("make", [
    lambda: sim.Seconds(-1.0),
    lambda: sim.Seconds(float("nan")),
    lambda: sim.Flops(-1.0),
    lambda: sim.Measured(()),
    lambda: sim.Measured(((2.0, 1.0), (1.0, 1.0))),
    lambda: sim.Job(sim.DataParallel(), DEEP, (0, 1), steps=0),
    lambda: sim.cluster("torus", shape=4),
    lambda: sim.fair_rates(nx.DiGraph([(0, 1, {"bandwidth": 1.0})]), [[[1], 2]]),
])  # fmt: skip
def test_slips_are_refused(make: object) -> None:
    with pytest.raises(ValueError, match=r"; got|does not"):
        make()  # type: ignore[operator]
