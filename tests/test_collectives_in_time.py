"""Collectives written out in messages and additions take as long as theory says, and servers and helpers too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import isclose, log2
from typing import ClassVar

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import AllGather, AllReduce, Broadcast, Chunk, Grads, Named, ReduceScatter, theory
from simulator.strategies.byteps import shared_out
from simulator.strategies.collectives import Group, bruck, pairwise

WHOLE = Grads(0)
EXAMPLE = (8, 100e6, 12.5e9, 10e-6)  # ranks, bytes, bytes per second, seconds
ALL_REDUCES: tuple[sim.Layer, ...] = (
    sim.RingAllReduce(),
    sim.RecursiveDoubling(),
    sim.HalvingDoubling(),
    sim.TreeAllReduce(),
    sim.DoubleTreeAllReduce(),
    sim.HierarchicalAllReduce(),
    sim.ServerAllReduce(),
    sim.ServerAllReduce(servers=1),
)
BROADCASTS: tuple[sim.Layer, ...] = (sim.TreeAllReduce(), sim.ScatterBroadcast(), sim.ChainBroadcast())
some = settings(max_examples=40, deadline=None)
powers = st.sampled_from([2, 4, 8])
networks = dict(bandwidth=st.floats(1e3, 1e9), latency=st.floats(0, 1e-2))


@dataclass(frozen=True)
class Only(sim.Order):
    """A program that says these instructions on every rank."""

    axis: ClassVar[str | None] = "all"
    what: tuple[sim.Instruction, ...] = ()

    def program(self, me: sim.Rank) -> sim.Program:
        yield from self.what


@dataclass(frozen=True)
class Swapping(sim.Order):
    """All ranks exchange 1/n of a value with each other."""

    axis: ClassVar[str | None] = "all"
    text: Callable[..., sim.Program] = pairwise

    def program(self, me: sim.Rank) -> sim.Program:
        group = Group.along(me, "all")
        out, into = ([Named(name, i) for i in range(group.size)] for name in ("out", "in"))
        for index, value in enumerate(out):
            yield sim.Copy(Chunk(WHOLE, index, group.size), value)
        yield from self.text(group, out, into)


def flat(n: int, bandwidth: float, latency: float) -> sim.Cluster:
    """Links that share what they carry at one time."""
    return sim.Cluster.flat(ranks=n, bandwidth=bandwidth, latency=latency)


def blocking(n: int, bandwidth: float, latency: float) -> sim.Cluster:
    """As textbooks have it: a Send keeps its sender busy for its latency and its bytes; nothing else costs time."""
    overheads = sim.Overheads(message=latency, message_byte=1 / bandwidth)
    return sim.Cluster.flat(ranks=n, bandwidth=float("inf"), overheads=overheads)


def model_of(size: float, reduction: float = 0.0) -> sim.Model:
    """A model of so many bytes of gradients, in which adding a byte takes so many seconds."""
    model = sim.Model.of_times(blocks=1, forward=0, backward=0, parameters=round(size / 4))
    return replace(model, reduce=sim.Flops(4 * reduction * sim.Device().flops))


def seconds(
    layer: sim.Layer | None, cluster: sim.Cluster, size: float, *what: sim.Instruction, reduction: float = 0.0
) -> float:
    """How long instructions take; an AllReduce unless others are named."""
    order = Only(what=what or (AllReduce(WHOLE),))
    strategy = sim.stack(order) if layer is None else sim.stack(order, layer)
    return sim.simulate(strategy, model_of(size, reduction), cluster, steps=1).makespan


def test_theory_gives_the_examples():
    """A1 to A11, with the numbers of the example."""
    forms = {
        theory.ring_all_reduce: 14.140,
        theory.ring_all_gather: 7.070,
        theory.recursive_doubling: 24.030,
        theory.halving_doubling: 14.060,
        theory.tree_broadcast: 24.030,
        theory.tree_all_reduce: 48.060,
        theory.scatter_broadcast: 14.100,
        theory.pairwise_all_to_all: 7.070,
        theory.bruck_all_to_all: 12.030,
    }
    for form, expected in forms.items():
        assert form(*EXAMPLE) == pytest.approx(expected * 1e-3, rel=1e-12)
    assert theory.double_tree_all_reduce(*EXAMPLE) == pytest.approx(17.64e-3, rel=1e-3)
    small = (8, 1000, *EXAMPLE[2:])
    times = [form(*small) for form in (theory.recursive_doubling, theory.ring_all_reduce, theory.halving_doubling)]
    assert times == pytest.approx([30.24e-6, 140.14e-6, 60.14e-6], rel=1e-12)


def test_theory_of_pipelining():
    """A9: the best number of chunks, and that no whole number is better than the root says."""
    hops, *rest = 7, *EXAMPLE[1:]
    assert theory.best_chunks(hops, *rest) == pytest.approx(69.3, abs=0.05)
    assert theory.best_pipelined(hops, *rest) == pytest.approx(9.446e-3, rel=1e-4)
    times = [theory.pipelined(hops, *rest, k) for k in range(1, 200)]
    assert theory.pipelined(hops, *rest, 90) == pytest.approx(9.493e-3, rel=1e-4)
    assert min(times) == pytest.approx(theory.best_pipelined(hops, *rest), rel=1e-3)
    assert min(times) >= theory.best_pipelined(hops, *rest)


def test_theory_of_bounds_and_bus_bandwidth():
    """A12 and A13."""
    kinds = ("all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast", "reduce")
    assert [theory.bus_factor(kind, 8) for kind in kinds] == [1.75, 0.875, 0.875, 0.875, 1.0, 1.0]
    assert theory.bus_factor("all_reduce", 1024) == pytest.approx(1.998, abs=5e-4)
    found = [theory.lower_bound(kind, *EXAMPLE[:3]) for kind in ("all_reduce", "all_gather", "broadcast")]
    assert found == pytest.approx([14.0e-3, 7.0e-3, 8.0e-3], rel=1e-12)
    with pytest.raises(ValueError, match=r"a collective is one of 'all_reduce'.*got kind='scan'"):
        theory.bus_factor("scan", 8)


FORMS: list[tuple[sim.Layer, Callable[..., float]]] = [
    (sim.RingAllReduce(), theory.ring_all_reduce),
    (sim.RecursiveDoubling(), theory.recursive_doubling),
    (sim.HalvingDoubling(), theory.halving_doubling),
]


@pytest.mark.parametrize("layer, form", FORMS, ids=lambda value: getattr(value, "__name__", str(value)))
@some
@given(n=powers, unit=st.integers(1, 10**5), **networks, reduction=st.floats(0, 1e-6))
def test_all_reduces_take_their_closed_form(layer, form, n: int, unit: int, bandwidth, latency, reduction):
    """A1, A3, A4, additions included."""
    size = 4 * 8 * unit
    for cluster in (flat(n, bandwidth, latency), blocking(n, bandwidth, latency)):
        found = seconds(layer, cluster, size, reduction=reduction)
        assert isclose(found, form(n, size, bandwidth, latency, reduction), rel_tol=1e-9)


@some
@given(n=st.integers(2, 9), unit=st.integers(1, 10**5), **networks)
def test_halves_of_a_ring_take_half_its_time(n: int, unit: int, bandwidth: float, latency: float):
    """A2."""
    size, cluster = 4 * n * unit, flat(n, bandwidth, latency)
    for what in (ReduceScatter(WHOLE), AllGather(WHOLE)):
        found = seconds(sim.RingAllReduce(), cluster, size, what)
        assert isclose(found, theory.ring_all_gather(n, size, bandwidth, latency), rel_tol=1e-9)


def test_sizes_from_which_another_algorithm_is_faster():
    """A5: on either side of the size the other is faster, and at it both take as long."""
    n, _, bandwidth, latency = EXAMPLE
    cluster = flat(n, bandwidth, latency)
    time = partial(seconds, cluster=cluster)
    for layer, form, expected in (
        (sim.RingAllReduce(), theory.ring_beats_doubling, 1.10e6),
        (sim.HalvingDoubling(), theory.halving_beats_doubling, 0.30e6),
    ):
        size = form(n, bandwidth, latency)
        assert size == pytest.approx(expected, rel=1e-9)
        assert time(layer, size=size) == pytest.approx(time(sim.RecursiveDoubling(), size=size), rel=1e-9)
        assert time(layer, size=size / 2) > time(sim.RecursiveDoubling(), size=size / 2)
        assert time(layer, size=size * 2) < time(sim.RecursiveDoubling(), size=size * 2)


@some
@given(n=powers, unit=st.integers(1, 10**5), **networks)
def test_halving_is_never_slower_than_a_ring_where_nothing_contends(n: int, unit: int, bandwidth, latency):
    """A6."""
    cluster, size = flat(n, bandwidth, latency), 4 * 8 * unit
    saved = seconds(sim.RingAllReduce(), cluster, size) - seconds(sim.HalvingDoubling(), cluster, size)
    assert saved == pytest.approx(theory.halving_saves(n, latency), abs=1e-9 * size / bandwidth + 1e-12)
    assert theory.halving_saves(8, 10e-6) == pytest.approx(80e-6)


@some
@given(n=st.integers(2, 9), unit=st.integers(1, 10**5), root=st.integers(0, 1), **networks)
def test_trees_take_their_closed_form_where_a_sender_sends_once_at_a_time(n: int, unit: int, root, bandwidth, latency):
    """A7."""
    cluster, size = blocking(n, bandwidth, latency), 4 * unit
    found = seconds(sim.TreeAllReduce(), cluster, size, Broadcast(WHOLE, root=root))
    assert isclose(found, theory.tree_broadcast(n, size, bandwidth, latency), rel_tol=1e-9)
    found = seconds(sim.TreeAllReduce(), cluster, size, reduction=1 / bandwidth)
    expected = theory.tree_all_reduce(n, size, bandwidth, latency, 1 / bandwidth)
    if n in (2, 4, 8):
        assert isclose(found, expected, rel_tol=1e-9)
    assert found <= expected * (1 + 1e-9)  # of other numbers some ranks need not wait for every round


def test_a_tree_that_sends_to_several_at_once_is_late():
    """Three children of 8 MB share the root's link, so that all have it only after 24 MB, and so on down: 6, not 3."""
    found = seconds(sim.TreeAllReduce(), flat(8, 1e6, 0.0), 8e6, Broadcast(WHOLE))
    assert found == pytest.approx((3 + 2 + 1) * 8.0)


@some
@given(n=powers, unit=st.integers(1, 10**5), **networks)
def test_scatter_and_gather_takes_its_closed_form(n: int, unit: int, bandwidth: float, latency: float):
    """A8."""
    size = 4 * 8 * unit
    found = seconds(sim.ScatterBroadcast(), blocking(n, bandwidth, latency), size, Broadcast(WHOLE))
    assert isclose(found, theory.scatter_broadcast(n, size, bandwidth, latency), rel_tol=1e-9)


@some
@given(n=st.integers(2, 9), chunks=st.integers(1, 20), unit=st.integers(1, 10**4), **networks)
def test_a_chain_takes_its_closed_form(n: int, chunks: int, unit: int, bandwidth: float, latency: float):
    """A9; on links that carry the next chunk while one is on its way, latency is paid once per hop only."""
    size, layer = 4 * chunks * unit, sim.ChainBroadcast(chunks=chunks)
    found = seconds(layer, blocking(n, bandwidth, latency), size, Broadcast(WHOLE))
    assert isclose(found, theory.pipelined(n - 1, size, bandwidth, latency, chunks), rel_tol=1e-9)
    found = seconds(layer, flat(n, bandwidth, latency), size, Broadcast(WHOLE))
    expected = theory.pipelined(n - 1, size, bandwidth, 0.0, chunks) + (n - 1) * latency
    assert isclose(found, expected, rel_tol=1e-9)


@pytest.mark.parametrize("n", [2, 4, 7, 8, 16])
def test_a_double_tree_has_the_bandwidth_of_a_ring(n: int):
    """A10, shape only: within a tenth of the form; of half of it for n = 2, where no rank has two children."""
    found = seconds(sim.DoubleTreeAllReduce(chunks=40), flat(n, *EXAMPLE[2:]), 100e6)
    assert found == pytest.approx(theory.double_tree_all_reduce(n, *EXAMPLE[1:]) / (2 if n == 2 else 1), rel=0.1)


@pytest.mark.parametrize("n", [2, 4, 8, 16, 32])
def test_a_double_tree_has_the_latency_of_a_tree(n: int):
    """A10: 2·log2 n latencies, where a ring has 2(n - 1)."""
    found = seconds(sim.DoubleTreeAllReduce(chunks=1), flat(n, 1e15, 10e-6), 4 * n)
    assert found == pytest.approx(2 * log2(n) * 10e-6, rel=1e-3)


@pytest.mark.parametrize("text, form", [(pairwise, theory.pairwise_all_to_all), (bruck, theory.bruck_all_to_all)])
@some
@given(n=powers, unit=st.integers(1, 10**5), **networks)
def test_all_to_all_takes_its_closed_form(text, form, n: int, unit: int, bandwidth: float, latency: float):
    """A11."""
    size = 4 * 8 * unit
    run = sim.simulate(Swapping(text=text), model_of(size), flat(n, bandwidth, latency), steps=1)
    assert isclose(run.makespan, form(n, size, bandwidth, latency), rel_tol=1e-9)


# ---------------------------------------------------------------- bounds, and the collective of the engine


@some
@given(
    n=st.integers(2, 9),
    count=st.integers(1, 10**6),
    bandwidth=st.floats(1e3, 1e9),
    layer=st.sampled_from(ALL_REDUCES),
)
def test_no_program_beats_the_lower_bound(n: int, count: int, bandwidth: float, layer: sim.Layer):
    """A12, on links that carry no more than they can."""
    cluster, size = flat(n, bandwidth, 0.0), 4.0 * count
    least = 1 - 1e-9
    assert seconds(layer, cluster, size) >= theory.lower_bound("all_reduce", n, size, bandwidth) * least
    both = [seconds(sim.RingAllReduce(), cluster, size, what) for what in (ReduceScatter(WHOLE), AllGather(WHOLE))]
    assert min(both) >= theory.lower_bound("all_gather", n, size, bandwidth) * least
    for spread in BROADCASTS:
        found = seconds(spread, cluster, size, Broadcast(WHOLE, root=n - 1))
        assert found >= theory.lower_bound("broadcast", n, size, bandwidth) * least


@some
@given(n=st.integers(2, 9), count=st.integers(10**5, 10**7), **networks)
def test_a_written_out_ring_takes_as_long_as_the_collective(n: int, count: int, bandwidth: float, latency: float):
    """One text in messages, one as a flow: 0.2 % apart at most, which is what chunks of unequal size cost."""
    cluster, size = flat(n, bandwidth, latency), 4.0 * count
    for what in (AllReduce(WHOLE), ReduceScatter(WHOLE), AllGather(WHOLE)):
        assert isclose(
            seconds(sim.RingAllReduce(), cluster, size, what), seconds(None, cluster, size, what), rel_tol=2e-3
        )


def test_a_ring_in_buckets_overlaps_the_backward_pass_as_the_collective_does():
    model = sim.Model.of_times(blocks=6, forward=1.0, backward=2.0, parameters=6 * 8000)
    cluster = sim.Cluster.flat(ranks=8, bandwidth=32000.0, latency=0.01)
    for order in (sim.DataParallel(bucket_bytes=0), sim.DataParallel(bucket_bytes=60000)):
        runs = [sim.simulate(sim.stack(order, *more), model, cluster, steps=2) for more in ((), (sim.RingAllReduce(),))]
        assert runs[0].makespan == pytest.approx(runs[1].makespan, rel=2e-3)
        assert runs[1].bytes_sent == pytest.approx(runs[0].bytes_sent, rel=1e-9)


# ---------------------------------------------------------------- A14: nodes


def nodes(m: int, g: int, inner: float, outer: float) -> sim.Cluster:
    """m nodes of g ranks: a switch in each, and one that joins them."""
    graph = nx.DiGraph()
    for rank in range(m * g):
        for edge in ((rank, f"node {rank // g}"), (f"node {rank // g}", rank)):
            graph.add_edge(*edge, bandwidth=inner, latency=0.0)
    for node in range(m):
        for edge in ((f"node {node}", "spine"), ("spine", f"node {node}")):
            graph.add_edge(*edge, bandwidth=outer, latency=0.0)
    return sim.Cluster(f"{m} nodes of {g}", m * g, graph)


@pytest.mark.parametrize("outer, milliseconds", [(12.5e9, 125.83), (8 * 12.5e9, 20.83)])
def test_two_levels_use_all_network_cards_of_a_node(outer: float, milliseconds: float):
    """A14: 4 nodes of 8 ranks, 1 GB."""
    found = seconds(sim.HierarchicalAllReduce(group=8), nodes(4, 8, 300e9, outer), 1.024e9)
    assert found == pytest.approx(theory.hierarchical_all_reduce(4, 8, 1.024e9, 300e9, outer), rel=1e-9)
    assert theory.hierarchical_all_reduce(4, 8, 1e9, 300e9, outer) == pytest.approx(milliseconds * 1e-3, rel=1e-3)


def test_a_flat_ring_passes_one_network_card_again_and_again():
    """A14: 155 ms, where two levels take 126."""
    found = seconds(sim.RingAllReduce(), nodes(4, 8, 300e9, 12.5e9), 1.024e9)
    assert found == pytest.approx(1.024 * 155.0e-3, rel=2e-3)


# ---------------------------------------------------------------- A15 to A18: servers and helpers


def helped(n: int, helpers: int, pieces: int, **knobs: object) -> float:
    """Seconds to all-reduce 1 byte per byte per second, in so many pieces."""
    size = 4.0 * pieces * 100
    strategy = sim.BytePS(helpers=helpers, partition_bytes=size / pieces, **knobs)
    return sim.simulate(strategy, model_of(size), flat(n + helpers, size, 0.0), steps=1).makespan


@pytest.mark.parametrize("k, sizes", [(1, 8.0), (4, 2.0), (8, 1.0)])
def test_servers_on_ranks_of_their_own(k: int, sizes: float):
    """A15: push and pull overlap but for the last of the pieces of a server, which is pulled alone."""
    assert theory.parameter_server(8, k, 1.0, 1.0) == sizes
    each = 10
    assert helped(8, k, k * each, colocated=False) == pytest.approx(sizes * (each + 1) / each, rel=1e-6)


def test_servers_among_the_workers_are_an_all_reduce():
    """A16, with two latencies: one there, one back."""
    n, size, bandwidth, latency = EXAMPLE
    whole = theory.colocated_servers(n, size, bandwidth)
    assert whole == pytest.approx(1.75 * size / bandwidth)
    found = seconds(sim.ServerAllReduce(), flat(n, bandwidth, latency), size)
    assert found == pytest.approx(whole + 2 * latency, rel=1e-9)
    assert helped(8, 0, 64, ahead=64) == pytest.approx(1.75, rel=1e-6)


def test_theory_of_helpers():
    """A17 and A18."""
    found = [theory.helped_all_reduce(8, k, 1.0, 1.0) for k in (0, 1, 2, 4, 8, 9)]
    assert found == pytest.approx([1.75, 1.6, 1.474, 1.273, 1.0, 1.0], abs=5e-4)
    for n in range(2, 20):
        for k in range(n + 3):
            worker, helper = theory.helped_shares(n, k)
            assert n * worker + k * helper == pytest.approx(1.0)
            busiest = max(1 + (n - 2) * worker, n * helper)  # what a worker, and a helper, sends in both directions
            assert busiest == pytest.approx(theory.helped_all_reduce(n, k, 1.0, 1.0))
        ring, fewest = theory.ring_all_reduce(n, 1.0, 1.0), theory.servers_beat_ring(n)
        assert theory.parameter_server(n, fewest, 1.0, 1.0) < ring + 1e-12
        assert fewest == 1 or theory.parameter_server(n, fewest - 1, 1.0, 1.0) >= ring
    assert theory.servers_beat_ring(8) == 5


@pytest.mark.parametrize(
    "k, pieces, slack", [(0, 80, 1e-6), (1, 72, 0.05), (2, 80, 0.25), (3, 92, 0.25), (4, 80, 0.051)]
)
def test_helpers_approach_the_best_time(k: int, pieces: int, slack: float):
    """A17: never below; reached, but for the last pieces, where fair shares are also the best: 0, 1 and n helpers.

    In between every worker sends to helpers and to workers at once, and links give each flow as much, though helpers
    are to get more.
    """
    best = theory.helped_all_reduce(4, k, 1.0, 1.0)
    assert best * (1 - 1e-6) <= helped(4, k, pieces, ahead=16) <= best * (1 + slack)


def test_helpers_are_of_use():
    """A17: from the time of a ring towards that of one copy of the gradients."""
    ring, one, all_four = helped(4, 0, 80), helped(4, 1, 144), helped(4, 4, 80)
    assert ring == pytest.approx(1.5) and one < 0.95 * ring and all_four < 0.75 * ring


def test_servers_beat_a_ring_when_they_are_many():
    """A18: with 4 workers from 3 servers on."""
    assert theory.servers_beat_ring(4) == 3
    ring = theory.ring_all_reduce(4, 1.0, 1.0)
    assert helped(4, 2, 60, colocated=False) > ring > helped(4, 3, 90, colocated=False)


@given(st.integers(2, 10), st.integers(0, 10))
def test_pieces_are_shared_out_as_they_should_be(n: int, helpers: int):
    worker, helper = theory.helped_shares(n, helpers)
    owners = shared_out((1.0,) * 2000, (helper,) * helpers + (worker,) * n)
    for position in range(helpers + n):
        assert owners.count(position) == pytest.approx(2000 * (helper if position < helpers else worker), abs=2)


def test_horovod_fuses_small_gradients():
    """One ring costs 2(n - 1) latencies, however little it carries."""
    model = sim.Model.of_times(blocks=10, forward=0.0, backward=0.0, parameters=10 * 80)
    cluster = sim.Cluster.flat(ranks=8, bandwidth=1e9, latency=1e-3)
    fused, each = (sim.simulate(sim.Horovod(size), model, cluster, steps=1).makespan for size in (2**20, 0))
    assert fused == pytest.approx(theory.ring_all_reduce(8, 3200, 1e9, 1e-3), rel=1e-9)
    assert each == pytest.approx(10 * theory.ring_all_reduce(8, 320, 1e9, 1e-3), rel=1e-9)
    assert str(sim.Horovod()) == "DataParallel(bucket_bytes=67108864) + RingAllReduce(over='data')"
