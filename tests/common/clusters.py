"""What tests of clusters share: one of each kind, and runs on them."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

import simulator as sim
from simulator import AllGather, AllReduce, Broadcast, Grads, ReduceScatter
from simulator.plan import Plan
from simulator.plans import Planner

from .orders import Only

WHOLE = Grads(0)
some = settings(max_examples=60, deadline=None)

SMALL: dict[str, dict[str, Any]] = {
    "ideal": dict(ranks=3),
    "single-switch": dict(ranks=5),
    "fat-tree": dict(ranks=10, per_leaf=4, oversubscription=2.0),
    "ring": dict(ranks=6),
    "torus": dict(shape=(2, 3, 4)),
    "dgx-a100": dict(nodes=4, pod=2),
    "dgx-h100": dict(nodes=3),
    "mi300x": {},
    "mixed": dict(nodes=4, pod=2, oversubscription=2.0),
    "edge": dict(ranks=6),
}


def run_of(cluster: sim.Cluster, size: float, *what: sim.Instruction) -> sim.Run:
    """Instructions for a model of so many bytes; an AllReduce unless others are named."""
    model = sim.Model.of_times(blocks=1, forward=0, backward=0, parameters=round(size / 4))
    return sim.simulate(Only(what=what or (AllReduce(WHOLE),)), model, cluster, steps=1)


def best(cluster: sim.Cluster, kind: type[sim.Collective], size: float) -> Plan:
    """What all ranks together do."""
    return Planner(cluster, range(cluster.ranks)).best(kind, size)


KINDS = {AllReduce: 2.0, ReduceScatter: 1.0, AllGather: 1.0}


def least(cluster: sim.Cluster, kind: type[sim.Collective], size: float) -> float:
    """A12 for ranks whose bandwidths differ: what each must send and receive itself, and what all must together.

    Where all have the same bandwidth it is A12 itself. A rank has the bandwidth of all its links together.
    """
    n, graph = cluster.ranks, cluster.graph
    own = (n - 1) / n if kind in (ReduceScatter, AllGather) else 1.0
    total = KINDS.get(kind, 1.0) * (n - 1)
    sends, receives = kind in (AllReduce, ReduceScatter), kind in (AllReduce, AllGather, Broadcast)
    bounds = []
    for degree, needs in ((graph.out_degree, sends), (graph.in_degree, receives)):
        each = [degree(rank, weight="bandwidth") for rank in range(n)]
        bounds += [total / sum(each), own / min(each[kind is Broadcast :]) if needs else 0.0]
    return size * max(bounds)
