"""Clusters as people build them: every preset, and its shape."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import networkx as nx
import pytest
from common.clusters import SMALL, best, run_of

import simulator as sim
from simulator import ReduceScatter
from simulator.clusters.presets import PRESETS, presets

# ---------------------------------------------------------------- every preset


def test_every_preset_is_tried_here():
    assert set(SMALL) == set(PRESETS) == set(presets())


@pytest.fixture(params=SMALL)
def small(request: pytest.FixtureRequest) -> sim.Cluster:
    """Each preset in turn."""
    return sim.cluster(request.param, **SMALL[request.param])


def test_routes_follow_links_and_take_the_least_latency(small: sim.Cluster):
    graph = small.graph
    for source in range(small.ranks):
        least = nx.single_source_dijkstra_path_length(graph, source, weight="latency")
        for target in range(small.ranks):
            route = small.route(source, target)
            assert all(graph.has_edge(*link) for link in route)
            assert all(a[1] == b[0] for a, b in pairwise(route))
            if source == target:
                assert route == ()
                continue
            assert (route[0][0], route[-1][1]) == (source, target)
            assert small.latency(source, target) == pytest.approx(least[target], rel=1e-12)


def test_links_go_both_ways_and_all_ranks_are_there(small: sim.Cluster):
    graph = small.graph
    assert set(range(small.ranks)) <= set(graph.nodes) and nx.is_strongly_connected(graph)
    assert all(graph.has_edge(b, a) for a, b in graph.edges)
    for link in graph.edges:
        speed = graph.edges[link]
        assert small.bandwidth(link) == speed["bandwidth"] * speed["efficiency"] > 0
    assert len(list(small.wiring.links())) == graph.number_of_edges()  # none is listed twice


def test_a_preset_s_graph_makes_the_same_cluster(small: sim.Cluster):
    again = sim.Cluster.from_graph(small.graph)
    assert again.ranks == small.ranks
    members = range(small.ranks)
    assert len(again.wiring.machines(members)) == len(small.wiring.machines(members))
    for source, target in ((0, small.ranks - 1), (small.ranks - 1, 0), (0, 1)):
        assert again.latency(source, target) == pytest.approx(small.latency(source, target), rel=1e-9)


def test_every_preset_trains(small: sim.Cluster):
    model = sim.Model.of_times(blocks=3, parameters=3 * 10**6, batch=24)
    run = sim.simulate(sim.DataParallel(), model, small, steps=2)
    assert run.makespan >= 18.0 and run == sim.simulate(sim.DataParallel(), model, small, steps=2)


# ---------------------------------------------------------------- shapes


def crossing(graph: nx.DiGraph, half: set[object]) -> float:
    """Bytes per second out of one half of a network."""
    return sum(link["bandwidth"] for a, b, link in graph.edges(data=True) if a in half and b not in half)


def test_the_shape_of_a_dgx_pod():
    cluster = sim.cluster("dgx-a100", nodes=16)
    graph = cluster.graph
    assert cluster.ranks == 128 and cluster.device == sim.device("a100-sxm-80gb")
    kinds = Counter(node[0] for node in graph.nodes if isinstance(node, tuple))
    assert kinds == {"nvswitch": 16, "nic": 128, "leaf": 8}
    assert graph.number_of_edges() == 2 * 128 * 3  # to the switch inside, to the card, from there to its leaf
    assert graph.edges[5, ("nvswitch", 0)]["bandwidth"] == 300e9
    assert graph.edges[("nic", 3, 5), ("leaf", 0, 5)]["bandwidth"] == 25e9
    half = {n for n in graph.nodes if (n // 8 if isinstance(n, int) else n[1]) < 8 and not (n == 0 or "leaf" in str(n))}
    assert crossing(graph, half | {0}) == 8 * 8 * 25e9


def test_pods_are_joined_by_spines():
    for routing, count in (("ecmp", 2), ("adaptive", 1)):  # packet by packet, all spines are like one
        graph = sim.cluster("dgx-h100", nodes=8, pod=4, oversubscription=2.0, routing=routing).graph
        spines = [node for node in graph.nodes if isinstance(node, tuple) and node[0] == "spine"]
        assert len(spines) == count
        assert sum(graph.edges[("leaf", 0, 0), spine]["bandwidth"] for spine in spines) == 4 * 50e9 / 2


def test_same_rail_one_switch_other_rail_by_a_neighbour_other_pod_by_a_spine():
    cluster = sim.cluster("dgx-h100", nodes=4, pod=2)
    passed = [[node[0] for _, node in cluster.route(0, t) if isinstance(node, tuple)] for t in (1, 8, 9, 16, 17)]
    assert passed == [
        ["nvswitch"],
        ["nic", "leaf", "nic"],
        ["nvswitch", "nic", "leaf", "nic"],
        ["nic", "leaf", "spine", "leaf", "nic"],
        ["nic", "leaf", "spine", "leaf", "nic"],
    ]


@pytest.mark.parametrize("oversubscription", [1.0, 2.0, 3.0])
def test_a_fat_tree_is_oversubscribed_as_it_says(oversubscription: float):
    cluster = sim.cluster("fat-tree", ranks=32, per_leaf=8, oversubscription=oversubscription, bandwidth=10.0)
    graph = cluster.graph
    for leaf in range(4):
        out = graph.out_edges(("leaf", leaf), data=True)
        ups = [link["bandwidth"] for _, node, link in out if isinstance(node, tuple)]
        assert sum(ups) == pytest.approx(8 * 10.0 / oversubscription)
    half = {*range(16), ("leaf", 0), ("leaf", 1)}
    assert crossing(graph, half) == pytest.approx(16 * 10.0 / oversubscription)


def test_a_torus_has_all_its_wires():
    cluster = sim.cluster("torus", shape=(4, 4, 4))
    graph = cluster.graph
    assert {degree for _, degree in graph.out_degree()} == {6} and graph.number_of_edges() == 6 * 64
    assert graph.edges[0, 1]["bandwidth"] == 50e9  # a TPU v4 has 300 GB/s in 6 links
    assert crossing(graph, set(range(32))) == 2 * 16 * 50e9
    assert nx.diameter(graph) == 6 == max(len(cluster.route(0, rank)) for rank in range(64))
    assert sim.cluster("torus", ranks=512).name.endswith("8x8x8")
    assert sim.cluster("torus", ranks=16, chip="tpu-v5e").name.endswith("4x4")


def test_a_torus_adds_up_along_all_dimensions_at_once():
    """All links are busy all the time: (1 - 1/n)·size over all links of a rank, twice."""
    cluster = sim.cluster("torus", shape=(4, 4, 4), latency=0.0)
    rings = cluster.wiring.rings(range(64))
    assert len(rings) == 2 and all(sorted(ring) == list(range(64)) for ring in rings)
    assert all(len(cluster.route(a, b)) == 1 for ring in rings for a, b in pairwise(ring))
    assert run_of(cluster, 1e9).makespan == pytest.approx(2 * 63 / 64 * 1e9 / 300e9, rel=1e-9)
    ring = replace(cluster, algorithm="ring")
    assert run_of(ring, 1e9).makespan == pytest.approx(2 * 63 / 64 * 1e9 / 100e9, rel=1e-9)
    uneven = sim.cluster("torus", shape=(2, 1, 3), bandwidth=1.0, latency=0.5)
    assert best(uneven, ReduceScatter, 4.0).latency == 2 * 2 * 0.5
    assert sum(best(uneven, ReduceScatter, 4.0).sent) == pytest.approx(5.0)


def test_mixed_generations_compute_at_their_own_speed():
    cluster = sim.cluster("mixed", nodes=2)
    model = sim.Model("work", blocks=(sim.Block(forward=sim.Flops(1e12), backward=sim.Flops(2e12)),), batch=16)
    run = sim.simulate(sim.DataParallel(), model, cluster, steps=1)
    for rank, key in ((0, "a100-sxm-80gb"), (7, "a100-sxm-80gb"), (8, "h100-sxm"), (15, "h100-sxm")):
        assert cluster.device_of(rank) == sim.device(key)
        assert run.busy[rank] == pytest.approx(3e12 / sim.device(key).flops)


def test_the_edge_is_slow_and_the_server_is_not():
    cluster = sim.cluster("edge", ranks=4)
    assert cluster.bandwidth((1, "switch")) == 1.25e6 and cluster.bandwidth(("switch", 1)) == 6.25e6
    assert cluster.bandwidth((0, "switch")) == 12.5e9 and cluster.latency(0, 1) == pytest.approx(0.03, rel=1e-3)
    assert [cluster.device_of(rank).name for rank in range(4)] == ["server", "laptop", "phone", "small board"]


# ---------------------------------------------------------------- making them costs nothing


def test_a_large_cluster_is_made_at_once_and_without_networkx():
    program = (
        "import sys, time, simulator as sim; t = time.process_time(); c = sim.cluster('dgx-h100', nodes=2048);"
        "[c.route(r, (r + 8) % c.ranks) for r in range(c.ranks)];"
        "print(time.process_time() - t, c.ranks, 'networkx' in sys.modules, 'pandas' in sys.modules)"
    )
    root = Path(__file__).parent.parent
    said = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True).stdout
    took, ranks, *imported = said.split()
    assert ranks == "16384" and imported == ["False", "False"] and float(took) < 1.0


def test_a_graph_of_one_s_own_is_routed_quickly():
    graph = sim.cluster("fat-tree", ranks=1024, per_leaf=32).graph
    start = time.process_time()
    cluster = sim.Cluster.from_graph(graph)
    assert all(len(cluster.route(rank, (rank + 1) % 1024)) in (2, 4) for rank in range(1024))
    assert time.process_time() - start < 5.0


# ---------------------------------------------------------------- a name where a cluster belongs


@pytest.mark.parametrize(
    "ask",
    [
        lambda name: sim.simulate(sim.Single(), sim.Model.of_times(), name),
        lambda name: sim.search("gpt2-small", name),
        lambda name: sim.simulate_jobs([], name),
    ],
    ids=["simulate", "search", "jobs"],
)
def test_a_name_is_no_cluster_and_the_error_says_what_to_write(ask):
    for name, size in (("dgx-a100", "nodes=2"), ("ring", "ranks=8")):
        with pytest.raises(ValueError, match=rf'cluster is .*: write sim\.cluster\("{name}", {size}\)'):
            ask(name)
    with pytest.raises(ValueError, match=r"cluster is .*; got cluster='my cluster'"):
        ask("my cluster")


def test_memory_needs_no_cluster_but_a_number_of_ranks():
    for given in ("dgx-a100", sim.cluster("ideal", ranks=4)):
        with pytest.raises(ValueError, match=r"memory follows from the program alone.*: give ranks=16"):
            sim.memory(sim.Single(), sim.Model.of_times(), given)
