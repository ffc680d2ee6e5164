"""Collectives written out in messages and additions: right for any number of ranks, wherever they stand."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
from common.orders import Only
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import AllGather, AllReduce, Chunk, Grads, Named
from simulator.strategies.collectives import Group, bruck, pairwise
from simulator.strategies.collectives.broadcast import chain, scatter_and_gather
from simulator.strategies.collectives.double_tree import both_trees, first_tree, second_tree
from simulator.strategies.collectives.doubling import doubling
from simulator.strategies.collectives.halving import halving_doubling
from simulator.strategies.collectives.hierarchical import two_levels
from simulator.strategies.collectives.ring import ring, ring_all_gather, ring_reduce_scatter
from simulator.strategies.collectives.server import push_and_pull
from simulator.strategies.collectives.tree import tree, tree_broadcast
from simulator.values import Value, bounds

WHOLE = Grads(0)
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
some = settings(max_examples=40, deadline=None)


# ---------------------------------------------------------------- what they compute


def region(held: dict[Value, np.ndarray], value: Value) -> np.ndarray:
    """The numbers that a value names: chunks are views."""
    if not isinstance(value, Chunk):
        return held[value]
    whole = region(held, value.value)
    return whole[slice(*bounds(len(whole), value.index, value.of))]


def perform(programs: Sequence[Sequence[sim.Instruction]], held: list[dict[Value, np.ndarray]]) -> None:
    """Run one program per rank, without either clock: a rank stops where its message is not there yet."""
    mail: dict[tuple[int, int, Value], deque[np.ndarray]] = defaultdict(deque)
    waiting = {rank: deque(program) for rank, program in enumerate(programs)}
    moved = True
    while moved:
        moved = False
        for rank, program in waiting.items():
            while program and step(rank, program[0], held[rank], mail):
                program.popleft()
                moved = True
    assert not any(waiting.values()) and not any(mail.values())  # nobody waits, nothing is left over


def step(rank: int, what: sim.Instruction, held: dict[Value, np.ndarray], mail: dict) -> bool:
    """Do one instruction of a rank; False when it must wait."""
    if isinstance(what, sim.Send):
        mail[rank, what.to, what.value].append(region(held, what.value).copy())
    elif isinstance(what, sim.Recv):
        arrived = mail[what.source, rank, what.value]
        if not arrived:
            return False
        store(held, what.stored, arrived.popleft())
    elif isinstance(what, sim.Reduce):
        region(held, what.target)[:] += what.scale * region(held, what.source)
    else:
        assert isinstance(what, sim.Copy)
        store(held, what.target, region(held, what.source).copy())
    return True


def store(held: dict[Value, np.ndarray], value: Value, numbers: np.ndarray) -> None:
    """Write numbers where a name points to."""
    if isinstance(value, Chunk):
        region(held, value)[:] = numbers
    else:
        held[value] = numbers


def everybody(n: int) -> list[Group]:
    """The group of n ranks as each sees it."""
    return [Group("world", tuple(range(n)), rank) for rank in range(n)]


def random(n: int, size: int) -> list[dict[Value, np.ndarray]]:
    """Whole numbers for every rank, so that sums are exact in any order."""
    draw = np.random.default_rng(n + size)
    return [{WHOLE: draw.integers(-99, 99, size).astype(float)} for _ in range(n)]


def width_of(n: int) -> int:
    """A number of ranks per node that divides n and is not always the smallest."""
    return next(width for width in (4, 3, 2, n) if n % width == 0)


SUMS: dict[str, Callable[..., object]] = {
    "ring": ring,
    "doubling": doubling,
    "halving": halving_doubling,
    "tree": tree,
    "double tree": partial(both_trees, chunks=3),
    "levels": lambda group, value: two_levels(group, value, width_of(group.size)),
    "servers": lambda group, value: push_and_pull(group, value, group.size),
    "one server": lambda group, value: push_and_pull(group, value, 1),
}


@pytest.mark.parametrize("name", SUMS)
@some
@given(n=st.integers(2, 13), size=st.integers(0, 40))
def test_all_reduces_add_up_everywhere(name: str, n: int, size: int):
    held = random(n, size)
    total = sum(mine[WHOLE] for mine in held)
    perform([list(SUMS[name](group, WHOLE)) for group in everybody(n)], held)
    assert all(np.array_equal(mine[WHOLE], total) for mine in held)


@some
@given(n=st.integers(2, 13), size=st.integers(0, 40))
def test_a_ring_in_two_halves(n: int, size: int):
    """After the reduce-scatter chunk i is right on rank i, as the instruction ReduceScatter says."""
    held = random(n, size)
    total = sum(mine[WHOLE] for mine in held)
    perform([list(ring_reduce_scatter(group, WHOLE)) for group in everybody(n)], held)
    for rank, mine in enumerate(held):
        assert np.array_equal(region(mine, Chunk(WHOLE, rank, n)), total[slice(*bounds(size, rank, n))])
    perform([list(ring_all_gather(group, WHOLE)) for group in everybody(n)], held)
    assert all(np.array_equal(mine[WHOLE], total) for mine in held)


SPREADS: dict[str, Callable[..., object]] = {
    "tree": tree_broadcast,
    "scatter": scatter_and_gather,
    "chain": partial(chain, chunks=3),
}


@pytest.mark.parametrize("name", SPREADS)
@some
@given(n=st.integers(2, 13), size=st.integers(0, 40), data=st.data())
def test_broadcasts_reach_everybody(name: str, n: int, size: int, data: st.DataObject):
    held, root = random(n, size), data.draw(st.integers(0, n - 1))
    expected = held[root][WHOLE].copy()
    perform([list(SPREADS[name](group.turned(root), WHOLE)) for group in everybody(n)], held)
    assert all(np.array_equal(mine[WHOLE], expected) for mine in held)


@pytest.mark.parametrize("text", [pairwise, bruck])
@some
@given(n=st.integers(1, 13))
def test_all_to_all_is_a_transposition(text: Callable[..., object], n: int):
    out, into = [Named("out", i) for i in range(n)], [Named("in", i) for i in range(n)]
    held = [{out[to]: np.array([rank, to]) for to in range(n)} for rank in range(n)]
    perform([list(text(group, out, into)) for group in everybody(n)], held)
    for rank, mine in enumerate(held):
        assert [mine[into[source]].tolist() for source in range(n)] == [[source, rank] for source in range(n)]


@pytest.mark.parametrize("n", range(2, 33))
def test_two_trees_hold_every_rank_once_and_share_the_work(n: int):
    """A10: a rank that is inside one tree is a leaf of the other, but for one where n is odd."""
    inner = []
    for grow in (first_tree, second_tree):
        places = [grow(n, rank) for rank in range(n)]
        assert [parent for parent, _ in places].count(None) == 1
        assert sorted(child for _, below in places for child in below) == sorted(
            rank for rank, (parent, _) in enumerate(places) if parent is not None
        )
        assert max(len(below) for _, below in places) <= 2
        inner.append({rank for rank, (_, below) in enumerate(places) if below})
    assert len(inner[0] & inner[1]) <= n % 2


# ---------------------------------------------------------------- where they stand in a strategy


def test_only_the_named_axis_is_written_out():
    whole = sim.stack(sim.Pipeline("gpipe", microbatches=2), sim.DataParallel(overlap=False))
    for over, written in (("data", True), (None, True), ("pipeline", False)):
        text = str(sim.listing(sim.stack(whole, sim.RingAllReduce(over=over)), ranks=4))
        assert ("AllReduce" in text) is not written


def test_a_lone_rank_keeps_its_collectives():
    for layer in ALL_REDUCES:
        assert "AllReduce Grads(0)" in str(sim.listing(sim.stack(Only(what=(AllReduce(WHOLE),)), layer), ranks=1))


def test_collectives_of_another_size_stay_as_they_are():
    rewritten = sim.listing(sim.stack(Only(what=(AllGather(WHOLE, into=Named("all")),)), sim.RingAllReduce()), ranks=2)
    assert rewritten.columns[0] == (str(AllGather(WHOLE, into=Named("all"))),)


def learned(*parts: sim.Order | sim.Layer, ranks: int) -> dict[str, np.ndarray]:
    """The parameters after some steps."""
    problem = sim.problem("digits-mlp", dtype="float64", hidden=8, batch=12)
    return sim.simulate(sim.stack(*parts), problem, sim.cluster("ideal", ranks=ranks), steps=3).parameters


@pytest.mark.parametrize("below", [sim.Sharded(2), sim.Sharded(3), sim.LocalSGD(period=2)], ids=str)
@pytest.mark.parametrize("ranks", [2, 3])
def test_it_does_not_matter_who_writes_the_collective(below: sim.Layer, ranks: int):
    """Gradients, parameters, whole or in chunks: with a ring of messages the same is learned."""
    alone, written = learned(below, ranks=ranks), learned(below, sim.RingAllReduce(), ranks=ranks)
    assert all(np.max(np.abs(alone[name] - written[name])) <= 1e-12 for name in alone)


@dataclass(frozen=True)
class Buffered(sim.Order):
    """Puts 7 numbers into a buffer on each rank, reduces it, and notes what is in it."""

    axis: ClassVar[str | None] = "all"
    op: str = "sum"

    def program(self, me: sim.Rank) -> sim.Program:
        for _ in me.steps():
            yield sim.Compute(partial(numbers, me.rank), (sim.Params(0),), (Named("buffer"),))
            yield sim.Start(AllReduce(Named("buffer"), over="all", op=self.op), on="beside")
            yield sim.Wait()
            for index in range(7):
                yield sim.Measure(f"number {index}", partial(one, index), (Named("buffer"),))


def numbers(rank: int, params: object) -> object:
    """0, 1, … 6 times the rank and one."""
    import torch

    return torch.arange(7, dtype=torch.float64) * (rank + 1)


def one(index: int, buffer: object) -> float:
    """One of the numbers."""
    return float(buffer[index])  # type: ignore[index]


@pytest.mark.parametrize("layer", ALL_REDUCES, ids=str)
@pytest.mark.parametrize("op", ["sum", "mean"])
def test_buffers_are_reduced_too(layer: sim.Layer, op: str):
    problem = sim.problem("digits-mlp", dtype="float64", hidden=4, batch=12)
    cluster = sim.Cluster.flat(ranks=4, bandwidth=1e6, latency=1e-3)
    run = sim.simulate(sim.stack(Buffered(op=op), layer), problem, cluster, steps=1)
    factor = 10.0 if op == "sum" else 2.5
    found = {(sample.rank, sample.name): sample.value for sample in run.samples}
    assert found == {(rank, f"number {i}"): factor * i for rank in range(4) for i in range(7)}
    assert all(sent == int(sent) and sent % 8 == 0 for sent in run.bytes_sent)  # whole numbers of 8 bytes


def test_helpers_hold_no_parameters_and_see_no_data():
    run = sim.simulate(
        sim.BytePS(helpers=2), sim.problem("digits-mlp", hidden=8, batch=12), sim.cluster("ideal", 4), steps=2
    )
    assert run.workers == (2, 3) and "replicas" not in run.notes
    assert not any(span.instruction.startswith(("Forward", "Update")) for span in run.spans if span.rank < 2)


def test_two_programs_on_two_streams_do_not_share_a_buffer():
    both = (
        sim.Start(AllReduce(Grads(0)), on="one"),
        sim.Start(AllReduce(Grads(1)), on="two"),
        sim.Wait(),
    )
    for layer in ALL_REDUCES:
        sim.validate(sim.stack(Only(what=both), layer), ranks=4)


# ---------------------------------------------------------------- mistakes

MISTAKES = {
    "nodes are of one size.*got 6 ranks and group=4": lambda: sim.HierarchicalAllReduce(group=4),
    "servers are among the ranks; got servers=7 and 6": lambda: sim.ServerAllReduce(servers=7),
    "group is a whole number, at least 1; got group=0": lambda: sim.HierarchicalAllReduce(group=0),
    "servers is a whole number, at least 1; got servers=0": lambda: sim.ServerAllReduce(servers=0),
    "chunks is a whole number, at least 1; got chunks=0": lambda: sim.ChainBroadcast(chunks=0),
    "chunks is a whole number, at least 1; got chunks=1.5": lambda: sim.DoubleTreeAllReduce(chunks=1.5),
    r"program is a function \(group, value\).*got 'ring'": lambda: sim.AllReduceBy("ring"),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_named(message: str):
    with pytest.raises(ValueError, match=message):
        sim.validate(sim.stack(Only(what=(AllReduce(WHOLE),)), MISTAKES[message]()), ranks=6)


def test_mistakes_with_helpers_are_named():
    with pytest.raises(ValueError, match=r"2 helper\(s\) need at least one worker more; got ranks=2"):
        sim.validate(sim.BytePS(helpers=2), ranks=2)
    with pytest.raises(ValueError, match=r"somebody adds.*got helpers=0"):
        sim.BytePS(helpers=0, colocated=False)
    with pytest.raises(ValueError, match="partition_bytes is a finite number, above 0"):
        sim.BytePS(partition_bytes=0)
    with pytest.raises(ValueError, match="got 1 outgoing and 2 incoming for 2 ranks"):
        list(pairwise(Group("world", (0, 1), 0), [Named("a")], [Named("b", 0), Named("b", 1)]))
