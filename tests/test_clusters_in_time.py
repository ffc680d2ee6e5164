"""Flows and collectives on networks: shares, bounds, and the algorithm that is chosen."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from math import isclose
from typing import Any

import networkx as nx
import pytest
import simpy
from common.clusters import KINDS, SMALL, WHOLE, best, least, run_of, some
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import AllGather, AllReduce, AllToAll, Barrier, Broadcast, ReduceScatter, theory
from simulator.cluster import ALGORITHMS
from simulator.clusters import Box, Rails, Speed
from simulator.clusters.wiring import rotations
from simulator.network import Network
from simulator.plans import Planner

# ---------------------------------------------------------------- A19, A22: flows share links


def flows_of(cluster: sim.Cluster, pairs: list[tuple[int, int]]) -> list[list[object]]:
    """The nodes that messages between these ranks pass."""
    return [[a, *(node for _, node in cluster.route(a, b))] for a, b in pairs]


def test_incast_into_one_card_and_a_flow_beside_it():
    """A19, on a switch with 10 B/s for each rank."""
    cluster = sim.cluster("single-switch", ranks=10, bandwidth=10.0)
    flows = flows_of(cluster, [(rank, 8) for rank in range(8)])
    assert sim.fair_rates(cluster.graph, flows) == pytest.approx([1.25] * 8)
    both = [*flows, *flows_of(cluster, [(0, 9)])]
    assert sim.fair_rates(cluster.graph, both) == pytest.approx([1.25] * 8 + [8.75])


def test_neighbours_of_a_machine_share_its_card():
    cluster = sim.cluster("dgx-a100", nodes=2, cards=1)
    flows = flows_of(cluster, [(rank, 8 + rank) for rank in range(8)])
    assert sim.fair_rates(cluster.graph, flows) == pytest.approx([25e9 * 0.925 / 8] * 8)
    every = sim.cluster("dgx-a100", nodes=2)
    flows = flows_of(every, [(rank, 8 + rank) for rank in range(8)])
    assert sim.fair_rates(every.graph, flows) == pytest.approx([25e9 * 0.925] * 8)


@st.composite
def networks(draw: st.DrawFn) -> sim.Cluster:
    """Ranks and switches, joined at random so that everybody reaches everybody; some ranks share a machine."""
    ranks, switches = draw(st.integers(2, 6)), draw(st.integers(0, 3))
    nodes: list[object] = [*range(ranks), *(f"switch {index}" for index in range(switches))]
    graph = nx.Graph()
    speeds = st.tuples(st.floats(1.0, 100.0), st.sampled_from([0.0, 0.5, 1.0]))
    for index, node in enumerate(nodes[1:], 1):
        graph.add_edge(node, nodes[draw(st.integers(0, index - 1))])
    for _ in range(draw(st.integers(0, 6))):
        a, b = draw(st.sampled_from(nodes)), draw(st.sampled_from(nodes))
        if a != b:
            graph.add_edge(a, b)
    for a, b in graph.edges:
        graph.edges[a, b]["bandwidth"], graph.edges[a, b]["latency"] = draw(speeds)
    for rank in range(ranks):
        graph.nodes[rank]["machine"] = draw(st.integers(0, 2))
    return sim.Cluster.from_graph(graph, seed=draw(st.integers(0, 3)))


@some
@given(networks(), st.data())
def test_max_min_over_routes_of_random_networks(cluster: sim.Cluster, data: st.DataObject):
    """A22: no link is overfull; every flow crosses a full one on which nobody is faster."""
    ranks = st.integers(0, cluster.ranks - 1)
    pairs = data.draw(st.lists(st.tuples(ranks, ranks).filter(lambda pair: pair[0] != pair[1]), min_size=1, max_size=9))
    rates = sim.fair_rates(cluster.graph, flows_of(cluster, pairs))
    load: Counter[object] = Counter()
    for pair, rate in zip(pairs, rates):
        for link in cluster.route(*pair):
            load[link] += rate  # type: ignore[assignment]
    assert all(load[link] <= cluster.bandwidth(link) * (1 + 1e-9) for link in load)  # type: ignore[arg-type]
    for pair, rate in zip(pairs, rates):
        full = [link for link in cluster.route(*pair) if isclose(load[link], cluster.bandwidth(link), rel_tol=1e-9)]
        assert any(all(rate >= r * (1 - 1e-9) for p, r in zip(pairs, rates) if k in cluster.route(*p)) for k in full)


# ---------------------------------------------------------------- collectives on networks


@settings(max_examples=200, deadline=None)
@given(networks(), st.sampled_from([AllReduce, ReduceScatter, AllGather, Broadcast]), st.sampled_from(ALGORITHMS))
def test_no_collective_beats_its_lower_bound_on_any_network(cluster: sim.Cluster, kind: Any, algorithm: str):
    """A12."""
    run = run_of(replace(cluster, algorithm=algorithm), 4000.0, kind(WHOLE))
    assert run.makespan >= least(cluster, kind, 4000.0) * (1 - 1e-9)


def test_the_lower_bound_is_that_of_ranks_alike():
    """A12: 14, 7 and 8 ms; a ring reaches it where there is no latency."""
    cluster = sim.cluster("single-switch", ranks=8, bandwidth=12.5e9, latency=0.0)
    for kind, milliseconds in ((AllReduce, 14.0), (ReduceScatter, 7.0), (AllGather, 7.0), (Broadcast, 8.0)):
        assert least(cluster, kind, 100e6) == pytest.approx(milliseconds * 1e-3)
        assert best(cluster, kind, 100e6).rated(100e6) == pytest.approx(milliseconds * 1e-3)


@some
@given(networks(), st.sampled_from(list(KINDS)), st.sampled_from(ALGORITHMS))
def test_every_algorithm_sends_as_much(cluster: sim.Cluster, kind: Any, algorithm: str):
    """All together 2(n-1) times the value, or half of that; only who sends it to whom differs."""
    cluster = replace(cluster, algorithm=algorithm)
    plan = best(cluster, kind, 1e3)
    assert sum(plan.sent) == pytest.approx(KINDS[kind] * (cluster.ranks - 1), rel=1e-9)
    assert sum(run_of(cluster, 4000, kind(WHOLE)).bytes_sent) == pytest.approx(4000 * sum(plan.sent), rel=1e-9)


def nodes_of(m: int, g: int, inner: float, cards: float, **knobs: Any) -> sim.Cluster:
    """m machines of g ranks with a card each, all without latency."""
    box = Box(Speed(inner), Speed(1e15), Speed(cards / g))
    return sim.Cluster(f"{m} machines", m * g, Rails((box,) * m, g, g, m, 1, Speed(1e15)), **knobs)


@pytest.mark.parametrize("cards, milliseconds", [(12.5e9, 125.83), (8 * 12.5e9, 20.83)])
def test_two_levels_in_the_engine(cards: float, milliseconds: float):
    """A14: 4 machines of 8 ranks, 1 GB."""
    run = run_of(nodes_of(4, 8, 300e9, cards, algorithm="hierarchical"), 1e9)
    assert run.makespan == pytest.approx(theory.hierarchical_all_reduce(4, 8, 1e9, 300e9, cards), rel=1e-9)
    assert run.makespan == pytest.approx(milliseconds * 1e-3, rel=1e-3)


def test_rings_leave_a_machine_by_all_its_cards():
    """A ring through one card of 12.5 GB/s takes 155 ms (A14); so do eight rings through eight that make it up."""
    assert rotations([[0, 1], [2, 3]]) == [[0, 1, 3, 2], [1, 0, 2, 3]]
    run = run_of(nodes_of(4, 8, 300e9, 12.5e9), 1e9)
    assert run.makespan == pytest.approx(0.155, rel=1e-9)
    busy = Counter()
    plan = best(nodes_of(4, 8, 300e9, 12.5e9), AllReduce, 1e9)
    for link, share in plan.stages[0][1].items():
        if isinstance(link[0], tuple) and link[0][0] == "nic" and isinstance(link[1], tuple):
            busy[link[0]] += share  # type: ignore[assignment]
    assert len(busy) == 32 and list(busy.values()) == pytest.approx([2 * 31 / 32 / 8] * 32)


def test_the_algorithm_goes_by_size_and_by_wiring():
    cluster = replace(sim.cluster("dgx-a100", nodes=16), algorithm="auto")
    assert best(cluster, AllReduce, 1e3).name.startswith("tree with LL")
    assert best(cluster, AllReduce, 1e9).name == "ring with Simple"
    named = replace(cluster, algorithm="tree")
    assert best(named, AllReduce, 1e9).name == "tree with Simple" and best(named, AllGather, 1e9).name[:4] == "ring"
    times = [best(cluster, AllReduce, 2.0**k).seconds(2.0**k) for k in range(8, 34)]
    assert times == sorted(times)
    promised = [best(cluster, AllReduce, 2.0**k).promised(2.0**k) for k in range(8, 34)]
    for name in ("ring", "tree"):
        plans = [best(replace(cluster, algorithm=name), AllReduce, 2.0**k).promised(2.0**k) for k in range(8, 34)]
        assert all(mine <= other for mine, other in zip(promised, plans))  # NCCL goes by its tables


def test_a_run_takes_what_its_plan_says():
    for name in ("dgx-a100", "mi300x", "torus", "mixed"):
        cluster = sim.cluster(name, **SMALL[name])
        for kind in (AllReduce, AllGather, ReduceScatter, Broadcast):
            for size in (4e3, 4e8):
                expected = best(cluster, kind, size).seconds(size)
                assert run_of(cluster, size, kind(WHOLE)).makespan == pytest.approx(expected, rel=1e-9)
        assert run_of(cluster, 4.0, Barrier()).makespan == pytest.approx(best(cluster, Barrier, 0.0).latency)


def test_bandwidth_in_a_mesh_grows_with_the_ranks():
    """A23: 2 of them reach 47.7 GB/s, 8 of them 312.9 GB/s; the ratio is 6.5."""
    size, found = 1e9, []
    for n in (2, 8):
        run = run_of(sim.cluster("mi300x", ranks=n), size)
        found.append(2 * (n - 1) / n * size / run.makespan)
    assert found[1] / found[0] == pytest.approx(6.5, rel=0.15)
    assert found == pytest.approx([47.7e9, 312.9e9], rel=0.1)


@pytest.mark.parametrize(
    "n, size, microseconds",
    [
        (2, 2**30, 5442.8),
        (4, 2**30, 7259.4),
        (8, 2**30, 8193.0),
        (8, 2**27, 1162.0),
        (8, 2**26, 579.9),
    ],
)
def test_an_all_reduce_inside_a_dgx_a100(n: int, size: int, microseconds: float):
    """Measured with NCCL (VIA-Research/vTrain, trace/a100, MICRO 2024); predicted from the catalogue alone."""
    run = run_of(sim.cluster("dgx-a100", ranks=n), size)
    assert run.makespan == pytest.approx(microseconds * 1e-6, rel=0.2)


def test_experts_exchange_over_switch_and_cards():
    """All-to-all: what a rank sends to other machines passes its card; all have as much."""
    cluster = nodes_of(2, 4, 100e9, 4 * 10e9)
    plan = best(cluster, AllToAll, 1e6)
    assert plan.seconds(7e9) == pytest.approx(4e9 / 10e9) and plan.sent == pytest.approx([1.0] * 8)


@pytest.mark.parametrize("cards, factor", [(1, 2.0), (2, 1.0)])
def test_two_groups_share_a_card_that_both_need(cards: int, factor: float):
    """All-reduces of two pairs of ranks at one time: over one card they take twice as long as over two."""
    cluster, ends = sim.cluster("dgx-a100", nodes=2, cards=cards, algorithm="ring"), []
    env = simpy.Environment()
    network = Network(env, cluster.bandwidth)
    for members in ((0, 8), (7, 15)):
        ((_, path),) = Planner(cluster, members).best(AllReduce, 1e9).stages
        network.start(path, 1e9, lambda: ends.append(env.now))
    env.run()
    assert ends == pytest.approx([factor * 1e9 / (25e9 * 0.925)] * 2)


def test_flows_elsewhere_are_left_alone():
    """Each of 2000 pairs has links of its own: starting and ending costs what the pair costs."""
    env = simpy.Environment()
    network, ends = Network(env, lambda link: 1.0), []
    for pair in range(2000):
        for size in (1.0, 2.0):
            network.start({pair: 1}, size + pair, lambda: ends.append(env.now))
    start = time.process_time()
    env.run()
    assert time.process_time() - start < 2.0
    assert ends == sorted(ends) and ends[0] == 2.0 and len(ends) == 4000
    assert ends[-1] == pytest.approx(2 * 1999 + 3.0)


def test_a_flow_that_ends_before_it_was_shared_out_ends_once():
    env, ends = simpy.Environment(), []
    network = Network(env, lambda link: 1.0)
    env.timeout(1.0).callbacks.append(lambda _: network.start({"a": 1}, 0.0, lambda: ends.append(("late", env.now))))
    network.start({"a": 1}, 1.0, lambda: ends.append(("first", env.now)))
    network.start({}, 1.0, lambda: ends.append(("nowhere", env.now)))
    env.run()
    assert sorted(ends) == [("first", 1.0), ("late", 1.0), ("nowhere", 0.0)]
