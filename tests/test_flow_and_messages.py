"""A collective takes as long message by message as in one flow, where nobody else uses its links: any algorithm, any
wiring. What is computed for all messages at once is what their events would give."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from common.networks import networks
from common.orders import Beside, Only
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import AllGather, AllReduce, AllToAll, Broadcast, Grads, Named, ReduceScatter
from simulator.cluster import ALGORITHMS
from simulator.playing import Play

WHOLE = Grads(0)
EXCHANGE = AllToAll(WHOLE, counts=Named("counts"), into=Named("into"), arrived=Named("arrived"))
KINDS = [AllReduce(WHOLE), ReduceScatter(WHOLE), AllGather(WHOLE), Broadcast(WHOLE), Broadcast(WHOLE, root=2), EXCHANGE]
CLOSE = 0.002
"""How much they may differ at most; within rounding errors they do not."""

CLUSTERS: dict[str, sim.Cluster] = {
    "flat": sim.Cluster.flat(7, 1e9, 1e-5),
    "switch": sim.cluster("single-switch", ranks=6),
    "slow link": sim.Cluster.flat(6, 1e9, 1e-5).slowed({3: 4.0}),
    "edge": sim.cluster("edge", ranks=6),
    "fat-tree": sim.cluster("fat-tree", ranks=10, per_leaf=4, oversubscription=2.0),
    "ring": sim.cluster("ring", ranks=6),
    "torus": sim.cluster("torus", shape=(2, 3, 4)),
    "mesh": sim.cluster("mi300x"),
    "box": sim.cluster("dgx-a100", ranks=8),
    "boxes": sim.cluster("dgx-a100", nodes=2),
    "pods": sim.cluster("dgx-a100", nodes=4, pod=2),
    "one card": sim.cluster("dgx-a100", nodes=2, cards=1),
    "newer": sim.cluster("dgx-h100", nodes=3),
    "mixed": sim.cluster("mixed", nodes=4, pod=2, oversubscription=2.0),
}


@pytest.fixture(autouse=True)
def evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody has as much for everybody."""
    monkeypatch.setattr(sim.Rank, "imbalance", lambda me, value: 1.0)


def seconds(cluster: sim.Cluster, size: float, what: sim.Instruction, detail: str) -> float:
    """How long one collective takes."""
    model = sim.Model.of_times(blocks=1, forward=0, backward=0, parameters=round(size / 4))
    return sim.simulate(Only(what=(what,)), model, cluster, steps=1, detail=detail).makespan


# ---------------------------------------------------------------- flow and messages


@pytest.mark.parametrize("name", CLUSTERS)
@pytest.mark.parametrize("algorithm", [None, "ring", "tree", "hierarchical", "direct"])
def test_as_long_as_one_flow(name: str, algorithm: str | None):
    """A1, A2, A7, A9, A10, A11, A14: whatever the size, with latency and without contention of others."""
    cluster = CLUSTERS[name] if algorithm is None else replace(CLUSTERS[name], algorithm=algorithm)
    for what in KINDS:
        for size in (4e3, 4e6, 4e9):
            flow, messages = (seconds(cluster, size, what, detail) for detail in ("flow", "messages"))
            assert messages == pytest.approx(flow, rel=1e-9), (what, size)


@settings(max_examples=300, deadline=None)
@given(networks, st.sampled_from(KINDS), st.sampled_from(ALGORITHMS), st.sampled_from([400.0, 4e5]))
def test_as_long_as_one_flow_on_any_network(cluster: sim.Cluster, what: Any, algorithm: str, size: float):
    if isinstance(what, Broadcast):
        what = Broadcast(WHOLE, root=what.root % cluster.ranks)
    cluster = replace(cluster, algorithm=algorithm)
    flow, messages = (seconds(cluster, size, what, detail) for detail in ("flow", "messages"))
    assert messages == pytest.approx(flow, rel=CLOSE)


# ---------------------------------------------------------------- computed, and played


def spans_of(cluster: sim.Cluster, order: sim.Order) -> list[Any]:
    """Every rank comes when its device has done a FLOP."""
    model = sim.Model.of_times(blocks=2, forward=0, backward=0, parameters=200)
    blocks = tuple(replace(block, forward=sim.Flops(1.0)) for block in model.blocks)
    run = sim.simulate(order, replace(model, blocks=blocks), cluster, steps=1, detail="messages")
    return sorted((s.rank, s.stream, s.instruction, s.start, s.end) for s in run.spans)


@settings(max_examples=200, deadline=None)
@given(networks, st.sampled_from(KINDS[:-1]), st.sampled_from(ALGORITHMS), st.data())
def test_computed_times_are_those_of_events(cluster: sim.Cluster, what: Any, algorithm: str, data: st.DataObject):
    """Whoever comes when, disturbed by messages beside or not."""
    if isinstance(what, Broadcast):
        what = Broadcast(WHOLE, root=what.root % cluster.ranks)
    speeds = st.lists(st.sampled_from([1.0, 1.0, 0.5, 0.03, 0.01]), min_size=cluster.ranks, max_size=cluster.ranks)
    devices = tuple(sim.Device("any", speed) for speed in data.draw(speeds))
    ranks = st.integers(0, cluster.ranks - 1)
    pairs = data.draw(st.lists(st.tuples(ranks, ranks).filter(lambda pair: pair[0] != pair[1]), max_size=3))
    cluster = replace(cluster, algorithm=algorithm, devices=devices)
    order = Beside(what=(what,), pairs=tuple(pairs))
    quick = spans_of(cluster, order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Play, "_computed", lambda self: False)
        slow = spans_of(cluster, order)
    assert len(quick) == len(slow)
    for one, other in zip(quick, slow):
        assert one[:3] == other[:3] and one[3:] == pytest.approx(other[3:], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("what", KINDS[:4], ids=str)
def test_many_machines_are_quick(what: sim.Instruction):
    """128 ranks on DGX machines, a quarter of a million messages: computed in less than two seconds."""
    cluster = sim.cluster("dgx-a100", nodes=16)
    start = time.process_time()
    assert seconds(cluster, 4e8, what, "messages") == pytest.approx(seconds(cluster, 4e8, what, "flow"), rel=1e-9)
    assert time.process_time() - start < 2.0
