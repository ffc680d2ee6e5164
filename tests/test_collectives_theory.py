"""Collectives, servers and shared links take as long as theory says, and never less than the lower bounds."""

from __future__ import annotations

from collections import Counter
from math import ceil, inf, isclose, log2

import networkx as nx
import pytest
import simpy
from common.orders import Only
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import AllGather, AllReduce, Barrier, Broadcast, Grads, ReduceScatter, Start, Wait, theory
from simulator.network import Network, max_min

WHOLE = Grads(0)
KINDS = (AllReduce, ReduceScatter, AllGather, Broadcast)
cases = settings(max_examples=60, deadline=None)
sizes = dict(n=st.integers(1, 9), count=st.integers(1, 10**6))
networks = dict(**sizes, bandwidth=st.floats(1e3, 1e9), latency=st.floats(0, 1))


def run_of(n: int, count: int, bandwidth: float, latency: float, *what: sim.Instruction, **knobs: object) -> sim.Run:
    """Instructions on ``n`` ranks of a flat cluster, for a model of ``count`` parameters of 4 bytes."""
    model = sim.Model.of_times(blocks=1, forward=0, backward=0, parameters=count)
    cluster = sim.Cluster.flat(ranks=n, bandwidth=bandwidth, latency=latency, **knobs)  # type: ignore[arg-type]
    return sim.simulate(Only(what=what), model, cluster, steps=1)


def expected(kind: type[sim.Collective], n: int, size: float, bandwidth: float, latency: float) -> float:
    """The closed form."""
    if kind is AllReduce:
        return theory.ring_all_reduce(n, size, bandwidth, latency)
    form = theory.tree_broadcast if kind is Broadcast else theory.ring_all_gather
    return form(n, size, bandwidth, latency)


# ---------------------------------------------------------------- A1, A2, A7, A12


def test_theory_of_collectives():
    example = (8, 100e6, 12.5e9, 10e-6)
    assert theory.ring_all_reduce(*example) == pytest.approx(14.140e-3, rel=1e-12)
    assert theory.ring_all_gather(*example) == pytest.approx(7.070e-3, rel=1e-12)
    assert theory.tree_broadcast(*example) == pytest.approx(24.030e-3, rel=1e-12)
    assert theory.all_reduce_bytes(8, 100e6) == 175e6


@pytest.mark.parametrize("kind, ms", list(zip(KINDS, (14.140, 7.070, 7.070, 24.030))))
def test_examples(kind: type[sim.Collective], ms: float):
    assert run_of(8, 25_000_000, 12.5e9, 10e-6, kind(WHOLE)).makespan == pytest.approx(ms / 1e3, rel=1e-9)


@cases
@given(**networks, kind=st.sampled_from(KINDS))
def test_collectives_take_their_closed_form(kind, n: int, count: int, bandwidth: float, latency: float):
    run = run_of(n, count, bandwidth, latency, kind(WHOLE))
    assert isclose(run.makespan, expected(kind, n, 4 * count, bandwidth, latency), rel_tol=1e-9)


@cases
@given(**networks, kind=st.sampled_from(KINDS))
def test_no_collective_beats_its_lower_bound(kind, n: int, count: int, bandwidth: float, latency: float):
    """Not even without latency; and nobody sends faster than its link."""
    run = run_of(n, count, bandwidth, 0.0, kind(WHOLE))
    whole = {AllReduce: 2 * (n - 1) / n, Broadcast: min(1, n - 1)}.get(kind, (n - 1) / n)
    assert run.makespan >= whole * 4 * count / bandwidth * (1 - 1e-9)
    assert run.makespan >= max(run.bytes_sent) / bandwidth * (1 - 1e-9)


@cases
@given(**networks)
def test_an_all_reduce_is_a_reduce_scatter_and_an_all_gather(n: int, count: int, bandwidth: float, latency: float):
    both = run_of(n, count, bandwidth, latency, ReduceScatter(WHOLE), AllGather(WHOLE))
    one = run_of(n, count, bandwidth, latency, AllReduce(WHOLE))
    assert isclose(both.makespan, one.makespan, rel_tol=1e-9)
    assert both.bytes_sent == pytest.approx(one.bytes_sent)


@pytest.mark.parametrize("n", range(1, 10))
def test_everybody_but_the_root_receives_a_broadcast_once(n: int):
    for root in range(n):
        sent = run_of(n, 250, 1e3, 0.0, Broadcast(WHOLE, root=root)).bytes_sent
        assert sum(sent) == 1000 * (n - 1) and max(sent) == sent[root] == 1000 * (ceil(log2(n)) if n > 1 else 0)


def test_a_barrier_costs_latency_only():
    run = run_of(8, 1000, 1.0, 0.5, Barrier())
    assert run.makespan == 3 * 0.5 and not any(run.bytes_sent)


def test_a_collective_starts_when_the_last_member_is_there():
    law = sim.noise.slow({2: 5.0})
    model = sim.Model.of_times(blocks=1, forward=1.0, backward=0.0, parameters=250)
    cluster = sim.Cluster.flat(ranks=4, bandwidth=1e3)
    run = sim.simulate(Only(what=(sim.Load(), sim.Forward(0), AllReduce(WHOLE))), model, cluster, steps=1, noise=law)
    assert run.makespan == pytest.approx(5.0 + theory.ring_all_reduce(4, 1000, 1e3))


def test_collectives_on_two_streams_share_the_links():
    alone = run_of(4, 1000, 1e3, 0.0, AllReduce(WHOLE)).makespan
    model = sim.Model.of_times(blocks=2, forward=0, backward=0, parameters=2000)
    what = (Start(AllReduce(Grads(0)), on="one"), Start(AllReduce(Grads(1)), on="two"), Wait())
    run = sim.simulate(Only(what=what), model, sim.Cluster.flat(ranks=4, bandwidth=1e3), steps=1)
    assert [span.end - span.start for span in run.spans] == pytest.approx([2 * alone] * 8)
    what = (Start(AllReduce(Grads(0)), on="one"), Start(AllReduce(Grads(1)), on="one"), Wait())
    run = sim.simulate(Only(what=what), model, sim.Cluster.flat(ranks=4, bandwidth=1e3), steps=1)
    assert [span.end - span.start for span in run.spans] == pytest.approx([alone] * 8)
    assert run.makespan == pytest.approx(2 * alone)


def test_fixed_overheads_are_added():
    extra = sim.Overheads(collective=0.25)
    run = run_of(4, 1000, 1e3, 0.0, AllReduce(WHOLE), overheads=extra)
    assert run.makespan == pytest.approx(0.25 + theory.ring_all_reduce(4, 4000, 1e3))
    assert run_of(1, 1000, 1e3, 0.0, AllReduce(WHOLE), overheads=extra).makespan == 0.0


# ---------------------------------------------------------------- A15: parameter servers


@pytest.mark.parametrize("servers, sizes", [(1, 8), (2, 4), (4, 2), (8, 1), (16, 1)])
def test_examples_of_parameter_servers(servers: int, sizes: int):
    assert theory.parameter_server(8, servers, 100e6, 12.5e9) == pytest.approx(sizes * 8e-3)


@settings(max_examples=40, deadline=None)
@given(workers=st.integers(1, 8), servers=st.integers(1, 8), unit=st.integers(1, 100), bandwidth=st.floats(1.0, 1e9))
def test_parameter_servers_take_their_closed_form(workers: int, servers: int, unit: int, bandwidth: float):
    count = 840 * unit  # split evenly by any number of servers up to 8
    model = sim.Model.of_times(blocks=1, forward=0, backward=0, parameters=count)
    cluster = sim.Cluster.flat(ranks=workers + servers, bandwidth=bandwidth)
    run = sim.simulate(sim.ParameterServer(servers=servers), model, cluster, steps=1)
    both_ways = 2 * theory.parameter_server(workers, servers, 4 * count, bandwidth)
    assert run.makespan == pytest.approx(both_ways, rel=1e-9)


# ---------------------------------------------------------------- A19 to A22: shared links


def star(*leaves: str, bandwidth: float = 10.0) -> nx.DiGraph:
    """Leaves around a switch."""
    graph = nx.DiGraph()
    for leaf in leaves:
        graph.add_edge(leaf, "switch", bandwidth=bandwidth)
        graph.add_edge("switch", leaf, bandwidth=bandwidth)
    return graph


def test_incast_shares_the_last_link():
    graph = star("sink", "idle", *(f"s{i}" for i in range(8)))
    flows = [(f"s{i}", "sink") for i in range(8)]
    assert sim.fair_rates(graph, flows) == pytest.approx([1.25] * 8)
    assert sim.fair_rates(graph, [*flows, ("s0", "idle")]) == pytest.approx([1.25] * 8 + [8.75])


@pytest.mark.parametrize("second, rates", [(10.0, [5, 5, 5]), (4.0, [2, 8, 2])])
def test_a_long_flow_beside_two_short_ones(second: float, rates: list[float]):
    graph = nx.DiGraph()
    graph.add_edge("a", "b", bandwidth=10.0)
    graph.add_edge("b", "c", bandwidth=second)
    assert sim.fair_rates(graph, [["a", "b", "c"], ["a", "b"], ["b", "c"]]) == pytest.approx(rates)


def test_paths_must_exist():
    with pytest.raises(ValueError, match="a flow follows the graph's edges; 's0' -> 's1' is none"):
        sim.fair_rates(star("s0", "s1"), [["s0", "s1", "switch"]])
    for pair in (("s0", "zz"), ("s1", "s0")):
        with pytest.raises(ValueError, match="from a node of the graph to one that it reaches"):
            sim.fair_rates(nx.DiGraph([("s0", "s1", {"bandwidth": 1.0})]), [pair])
    assert sim.fair_rates(star("s0"), [["s0"]]) == [inf]


def ends_of(sizes: list[float], capacity: float, starts: list[float] | None = None) -> list[float]:
    """When flows over one link end."""
    env, ends = simpy.Environment(), [0.0] * len(sizes)
    network = Network(env, lambda link: capacity)

    def begin(index: int) -> None:
        network.start({"link": 1}, sizes[index], lambda: ends.__setitem__(index, env.now))

    for index, start in enumerate(starts or [0.0] * len(sizes)):
        env.timeout(start).callbacks.append(lambda _, index=index: begin(index))
    env.run()
    return ends


def test_rates_are_shared_anew_whenever_a_flow_ends_or_starts():
    assert ends_of([1e9, 2e9, 3e9], 1e9) == pytest.approx([3.0, 5.0, 6.0], rel=1e-9)
    assert ends_of([2e9, 1e9], 1e9, starts=[0.0, 1.0]) == pytest.approx([3.0, 3.0], rel=1e-9)


@cases
@given(st.lists(st.tuples(st.floats(1.0, 1e6), st.floats(0.0, 10.0)), min_size=1, max_size=8))
def test_a_link_is_never_idle_while_something_waits(flows: list[tuple[float, float]]):
    """The last byte leaves when it would, were the flows one after another."""
    free = 0.0
    for size, start in sorted(flows, key=lambda flow: flow[1]):
        free = max(free, start) + size / 1e5
    ends = ends_of([size for size, _ in flows], 1e5, [start for _, start in flows])
    assert max(ends) == pytest.approx(free, rel=1e-9)
    assert all(end >= start + size / 1e5 * (1 - 1e-9) for end, (size, start) in zip(ends, flows))


paths = st.lists(st.dictionaries(st.integers(0, 5), st.integers(1, 3), min_size=1, max_size=4), min_size=1, max_size=12)


@cases
@given(paths, st.lists(st.floats(0.1, 100.0), min_size=6, max_size=6))
def test_every_flow_has_a_bottleneck(flows: list[dict[int, int]], capacity: list[float]):
    """Max-min fair: no link is overfull, and each flow crosses a full one on which nobody is faster."""
    rates = max_min(flows, lambda link: capacity[link])
    load: Counter[int] = Counter()
    for flow, rate in zip(flows, rates):
        for link, times in flow.items():
            load[link] += rate * times  # type: ignore[assignment]
    assert all(load[link] <= capacity[link] * (1 + 1e-9) for link in load)
    for flow, rate in zip(flows, rates):
        full = [link for link in flow if isclose(load[link], capacity[link], rel_tol=1e-9)]
        assert any(all(rate >= r * (1 - 1e-9) for f, r in zip(flows, rates) if link in f) for link in full)


UNSET: dict[str, float] = {}
ABOVE = {"bandwidth": 1.0, "efficiency": 2.0}


@pytest.mark.parametrize("edge, told", [(UNSET, "bandwidth=None"), (ABOVE, "efficiency=2")])
def test_rates_of_links_without_bandwidth_are_refused(edge: dict[str, float], told: str):
    graph = nx.DiGraph()
    graph.add_edge("a", "b", **edge)
    with pytest.raises(ValueError, match=rf"'a' -> 'b' has {told}"):
        sim.fair_rates(graph, [["a", "b"]])
