"""Clusters from graphs of one's own, and what is no cluster."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import pytest

import simulator as sim
from simulator.clusters.knobs import KNOBS
from simulator.clusters.wiring import choice


def test_equally_good_ways_are_all_used_and_the_same_pair_takes_the_same():
    for cluster in (
        sim.cluster("fat-tree", ranks=64, per_leaf=8),
        sim.Cluster.from_graph(sim.cluster("fat-tree", ranks=64, per_leaf=8).graph),
    ):
        used = Counter(cluster.route(a, b)[1][1] for a in range(8) for b in range(8, 64))
        assert len(used) == 8 and max(used.values()) < 2 * min(used.values())
        assert cluster.route(0, 63) == replace(cluster).route(0, 63)
    other = sim.cluster("fat-tree", ranks=64, per_leaf=8, seed=1)
    same = sum(other.route(a, b) == cluster.route(a, b) for a in range(8) for b in range(8, 64))
    assert same < 8 * 56 / 2
    assert Counter(choice(a, b, 0, 2) for a in range(100) for b in range(100))[0] == pytest.approx(5000, rel=0.05)


def test_undirected_edges_are_two_links():
    graph = nx.Graph()
    graph.add_edge(0, 1, bandwidth=10, latency=0.5)
    cluster = sim.Cluster.from_graph(graph, device=sim.Device(flops=1.0), algorithm="direct")
    assert cluster.graph.number_of_edges() == 2 and cluster.bandwidth((1, 0)) == 10.0 and cluster.latency(1, 0) == 0.5


def edges(*some: tuple[object, object, dict[str, object]]) -> nx.DiGraph:
    """A graph of these edges."""
    graph = nx.DiGraph()
    graph.add_edges_from(some)
    return graph


GOOD = dict(bandwidth=1.0, latency=0.0)


@pytest.mark.parametrize(
    "graph, says",
    [
        (
            edges((0, 1, dict(latency=0.0))),
            "a link has a bandwidth, bytes per second above 0; 0 -> 1 has bandwidth=None",
        ),
        (edges((0, 1, dict(bandwidth=0, latency=0))), "has bandwidth=0"),
        (edges((0, 1, dict(bandwidth=1.0))), "a link has a latency, seconds, 0 or more; 0 -> 1 has latency=None"),
        (edges((0, 1, dict(bandwidth=1.0, latency=-1))), "has latency=-1"),
        (edges((0, 1, dict(bandwidth="1", latency=0))), "has bandwidth='1'"),
        (edges((0, 1, dict(bandwidth=float("nan"), latency=0))), "has bandwidth=nan"),
        (edges((0, 1, {**GOOD, "efficiency": 2})), "has 2"),
        (edges((0, 2, GOOD)), "named 0 to 1; missing are \\[1\\]"),
        (edges(("a", "b", GOOD)), "a graph without whole numbers"),
        (nx.MultiGraph([(0, 1, GOOD)]), "a multigraph"),
        (edges((0, 1, {**GOOD, "efficiency": "x"})), "efficiency above 0, at most 1; 0 -> 1 has 'x'"),
        (edges((0, 1, {**GOOD, "bandwith": 2.0})), "got 'bandwith': is 'bandwidth' meant"),
        (edges((0, 1, {**GOOD, "Efficency": 1.0})), "got 'Efficency': is 'efficiency' meant"),
        ("x", "graph is a networkx graph .* got graph='x'"),
        (None, "graph is a networkx graph .* got graph=None"),
    ],
)
def test_graphs_that_are_no_clusters(graph: nx.Graph, says: str):
    with pytest.raises(ValueError, match=says):
        sim.Cluster.from_graph(graph)


def test_nodes_and_edges_carry_what_they_like_but_typos():
    graph = edges((0, 1, {**GOOD, "weight": 3, "label": "a", 7: None}), (1, 0, GOOD))
    assert sim.Cluster.from_graph(graph).ranks == 2
    graph.nodes[0]["machin"] = "a"
    with pytest.raises(ValueError, match="got 'machin': is 'machine' meant"):
        sim.Cluster.from_graph(graph)


def test_ranks_may_be_numbers_of_numpy():
    """The same times as with Python's own."""
    knobs = dict(bandwidth=1e9, latency=1e-6)
    model = sim.Model.of_times(parameters=10**6)
    runs = []
    for whole in (np.int64, int):
        cluster = sim.Cluster.from_graph(edges(*((whole(one), "switch", knobs) for one in range(3)),
                                               *(("switch", whole(one), knobs) for one in range(3))))  # fmt: skip
        assert cluster.ranks == 3 and all(type(node) in (int, str) for link in cluster.route(0, 2) for node in link)
        runs.append(sim.simulate(sim.DataParallel(), model, cluster, steps=1))
    assert runs[0] == runs[1]


def test_devices_of_a_graph_may_be_keys_of_the_catalogue():
    graph, key = edges((0, 1, GOOD), (1, 0, GOOD)), "a100-sxm-80gb"
    assert sim.Cluster.from_graph(graph, device=key).device == sim.device(key)
    assert sim.Cluster.flat(2, 1e9, device=key).device_of(1) == sim.device(key)
    mixed = sim.Cluster.from_graph(graph, devices=[key, sim.device("h100-sxm")])
    assert mixed.devices == (sim.device(key), sim.device("h100-sxm"))
    for knobs, says in (
        (dict(device="a1000"), "nothing in the catalogue is called 'a1000'"),
        (dict(device=5), "device is a Device, or the key of one.*got device=5"),
        (dict(devices=key), "devices is a sequence of Devices"),
        (dict(devices=[key]), "one for each of 2 ranks; got 1"),
    ):
        with pytest.raises(ValueError, match=says):
            sim.Cluster.from_graph(graph, **knobs)


@pytest.mark.parametrize(
    "links, says",
    [([(0, 1), (1, 2), (0, 2), (2, 1)], "from 1 to 0"), ([(0, 1), (1, 0), (2, 3), (3, 2)], "from 0 to 2")],
)
def test_a_rank_that_cannot_be_reached_is_refused_at_once(links, says):
    graph = edges(*((*link, GOOD) for link in links))
    with pytest.raises(ValueError, match=f"no way leads {says}"):
        sim.Cluster.from_graph(graph)
    cluster = sim.Cluster("half", len(graph), graph)
    assert cluster.route(0, 1) == ((0, 1),)
    with pytest.raises(ValueError, match=f"no way leads {says}"):
        cluster.route(int(says[5]), int(says[-1]))


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: sim.cluster("cloud", ranks=4), "no cluster is called 'cloud'; the names are 'ideal', 'single-switch'"),
        (
            lambda: sim.cluster("ideal"),
            "cluster 'ideal' takes ranks, and device, devices, algorithm, library, overheads; ranks is missing",
        ),
        (lambda: sim.cluster("ideal", ranks=4, node=2), "got node"),
        (lambda: sim.cluster("dgx-a100"), "takes nodes, or ranks"),
        (lambda: sim.cluster("dgx-a100", ranks=12), "a multiple of 8; got ranks=12"),
        (lambda: sim.cluster("dgx-a100", nodes=0), "nodes=0"),
        (lambda: sim.cluster("mixed", nodes=2, old=3), "got old=3 of nodes=2"),
        (lambda: sim.cluster("torus"), r"a torus takes shape=\(4, 4, 4\), or ranks"),
        (lambda: sim.cluster("torus", ranks=8, chip="h100-sxm"), "give a bandwidth"),
        (lambda: sim.cluster("fat-tree", ranks=8, oversubscription=0), "oversubscription=0"),
        (lambda: sim.cluster("mi300x", ranks=9), "got ranks=9"),
        (lambda: sim.cluster("ideal", ranks=4, algorithm="star"), "algorithm is one of 'ring'"),
        (lambda: sim.cluster("ideal", ranks=4, device="h1000"), "nothing in the catalogue is called 'h1000'"),
        (lambda: sim.cluster("ideal", ranks=4, device=[sim.Device()] * 3), "one for each of 4 ranks; got 3"),
        (lambda: sim.cluster("ideal", ranks=4, device=4.0), "device is a Device"),
        (lambda: sim.cluster("ideal", ranks=4, library="gloo"), "library is 'nccl' or None; got library='gloo'"),
        (lambda: sim.Cluster.flat(4, 1e9, algorithms="ring"), "every cluster takes device, devices.*got algorithms"),
        (lambda: sim.Cluster.from_graph(edges((0, 1, GOOD), (1, 0, GOOD)), libary="nccl"), "library.*got libary"),
    ],
)
def test_clusters_that_are_not(make: Any, says: str):
    with pytest.raises(ValueError, match=says):
        make()


def test_other_devices_and_algorithms():
    cluster = sim.cluster("dgx-a100", ranks=4, device="h100-sxm", algorithm="ring")
    assert cluster.device == sim.device("h100-sxm") and cluster.algorithm == "ring" and cluster.ranks == 4
    fast, slow = sim.Device(flops=4.0), sim.Device(flops=1.0)
    pair = sim.cluster("ideal", ranks=2, device=[fast, slow])
    model = sim.Model("work", blocks=(sim.Block(forward=sim.Flops(4.0), backward=sim.Flops(8.0)),), batch=2)
    run = sim.simulate(sim.DataParallel(), model, pair, steps=1)
    assert run.busy == pytest.approx([3.0, 12.0]) and run.makespan == pytest.approx(12.0)


MADE = {
    "flat": lambda **knobs: sim.Cluster.flat(4, 10e9, 1e-6, **knobs),
    "from_graph": lambda **knobs: sim.Cluster.from_graph(sim.Cluster.flat(4, 10e9, 1e-6).graph, **knobs),
    "cluster": lambda **knobs: sim.cluster("single-switch", ranks=4, bandwidth=10e9, latency=1e-6, **knobs),
    "Cluster": lambda **knobs: sim.Cluster("four", 4, sim.Cluster.flat(4, 10e9, 1e-6).wiring, **knobs),
}
"""Four ways to the same four ranks on a switch."""


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
@pytest.mark.parametrize(
    "knobs",
    [
        dict(algorithm="tree"),
        dict(algorithm="auto", library="nccl"),
        dict(overheads=sim.Overheads(collective=1e-3)),
        dict(device="h100-sxm"),
        dict(devices=["h100-sxm", "a100-sxm-80gb"] * 2),
    ],
    ids=lambda knobs: "-".join(knobs),
)
def test_every_way_to_make_a_cluster_takes_the_same_knobs(make: Any, knobs: dict[str, Any]):
    """And all of them mean the same: the run is that of every other way, to the last bit."""
    model = sim.model("gpt2-small", batch=8)
    ours, theirs = (one(**knobs) for one in (make, MADE["flat"]))
    assert all(getattr(ours, name) == getattr(theirs, name) for name in KNOBS)
    runs = [sim.simulate(sim.DataParallel(), model, one, steps=1) for one in (ours, theirs, make())]
    assert runs[0].makespan == runs[1].makespan != runs[2].makespan


def test_nccl_s_latencies_are_taken_away_from_a_preset_as_they_are_given_to_another():
    """A small all-reduce: a ring of 2(n-1) messages (A1), which NCCL's own protocols make slower."""
    small = sim.Model.of_times(blocks=1, forward=0.0, backward=0.0, parameters=250)
    n = 8
    bare, nccl = (
        sim.simulate(sim.DataParallel(), small, sim.cluster("dgx-h100", nodes=1, library=library), steps=1).makespan
        for library in (None, "nccl")
    )
    assert bare < nccl
    plain = sim.simulate(sim.DataParallel(), small, sim.Cluster.flat(n, 1e9, 1e-6), steps=1).makespan
    assert plain == pytest.approx(2 * (n - 1) * (1e-6 + 1000 / n / 1e9))
    ours = sim.simulate(sim.DataParallel(), small, sim.Cluster.flat(n, 1e9, 1e-6, library="nccl"), steps=1).makespan
    assert ours > plain + 3.6e-6  # NCCL's least, of a ring with LL
