"""Collectives written out in messages and additions take as long as theory says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import isclose, log2
from typing import ClassVar

import pytest
from common.timing import EXAMPLE, WHOLE, flat, model_of, networks, seconds, some
from hypothesis import given
from hypothesis import strategies as st

import simulator as sim
from simulator import AllGather, Broadcast, Chunk, Named, ReduceScatter, theory
from simulator.strategies.collectives import Group, bruck, pairwise

powers = st.sampled_from([2, 4, 8])


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


def blocking(n: int, bandwidth: float, latency: float) -> sim.Cluster:
    """As textbooks have it: a Send keeps its sender busy for its latency and its bytes; nothing else costs time."""
    overheads = sim.Overheads(message=latency, message_byte=1 / bandwidth)
    return sim.Cluster.flat(ranks=n, bandwidth=float("inf"), overheads=overheads)


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
