"""No collective, however it is simulated, beats what the links of its ranks allow; no byte is lost or made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf, isclose
from typing import Any, ClassVar

import pytest
import simpy
from common.networks import networks
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import AllGather, AllReduce, Broadcast, Grads, ReduceScatter, carrying
from simulator.cluster import ALGORITHMS
from simulator.network import Network
from simulator.plans import Planner

WHOLE = Grads(0)
SIZE = 4800.0
TIMES = {AllReduce: 2.0, ReduceScatter: 1.0, AllGather: 1.0, Broadcast: 1.0}
"""How often the value must be sent, by all together, to all but one rank."""

WRITTEN: list[tuple[sim.Layer, tuple[Any, ...]]] = [
    (sim.RingAllReduce(), (AllReduce, ReduceScatter, AllGather)),
    (sim.RecursiveDoubling(), (AllReduce,)),
    (sim.HalvingDoubling(), (AllReduce,)),
    (sim.TreeAllReduce(), (AllReduce, Broadcast)),
    (sim.DoubleTreeAllReduce(chunks=4), (AllReduce,)),
    (sim.HierarchicalAllReduce(), (AllReduce,)),
    (sim.ServerAllReduce(), (AllReduce,)),
    (sim.ServerAllReduce(servers=1), (AllReduce,)),
    (sim.ScatterBroadcast(), (Broadcast,)),
    (sim.ChainBroadcast(chunks=4), (Broadcast,)),
]
"""The collectives that are written as programs."""

many = settings(max_examples=150, deadline=None)


@dataclass(frozen=True)
class Only(sim.Order):
    """A program that says these instructions on every rank."""

    axis: ClassVar[str | None] = "all"
    what: tuple[sim.Instruction, ...] = ()

    def program(self, me: sim.Rank) -> sim.Program:
        yield from self.what


kinds = st.sampled_from(list(TIMES))
details = st.sampled_from(["flow", "messages"])


def run_of(cluster: sim.Cluster, what: sim.Instruction, detail: str, *layers: sim.Layer) -> sim.Run:
    """One collective of SIZE bytes."""
    model = sim.Model.of_times(blocks=1, forward=0, backward=0, parameters=round(SIZE / 4))
    return sim.simulate(sim.stack(Only(what=(what,)), *layers), model, cluster, steps=1, detail=detail)


# ---------------------------------------------------------------- A12


def least(cluster: sim.Cluster, kind: type[sim.Collective], root: int = 0) -> float:
    """A12 [s], for ranks whose bandwidths differ.

    A rank has B out and B in: what all its links together carry. Each must itself send what only it has, and receive
    what it has not: the whole value, in an all-reduce as in a broadcast, or all parts of it but one. All ranks together
    must send, and receive, the value n-1 times, in an all-reduce 2(n-1) times: who has more bandwidth may do more of
    that. So where all have the same B these are 2(n-1)/n S/B, (n-1)/n S/B and, of a broadcast, S/B.
    """
    n, graph = cluster.ranks, cluster.graph
    out, into = (
        [sum(cluster.bandwidth(link) for link in links(rank)) for rank in range(n)]
        for links in (graph.out_edges, graph.in_edges)
    )
    part = (n - 1) / n if kind in (ReduceScatter, AllGather) else 1.0
    bounds = [TIMES[kind] * (n - 1) / sum(out), TIMES[kind] * (n - 1) / sum(into)]
    if kind is Broadcast:
        bounds += [1.0 / out[root], *(1.0 / b for rank, b in enumerate(into) if rank != root)]
    if kind in (AllReduce, ReduceScatter):  # nobody else has what a rank gives
        bounds += [part / b for b in out]
    if kind in (AllReduce, AllGather):
        bounds += [part / b for b in into]
    return SIZE * max(bounds)


def instruction(kind: Any, root: int) -> sim.Instruction:
    """Of the whole value."""
    return Broadcast(WHOLE, root=root) if kind is Broadcast else kind(WHOLE)


@many
@given(networks, kinds, st.sampled_from(ALGORITHMS), details, st.integers(0, 1))
def test_no_algorithm_beats_the_lower_bound(cluster: sim.Cluster, kind: Any, algorithm: str, detail: str, root: int):
    """A12, as one flow and as messages."""
    run = run_of(replace(cluster, algorithm=algorithm), instruction(kind, root), detail)
    assert run.makespan >= least(cluster, kind, root) * (1 - 1e-9)


@many
@given(networks, st.sampled_from(WRITTEN), st.data(), st.integers(0, 1))
def test_no_program_beats_the_lower_bound(cluster: sim.Cluster, written: Any, data: st.DataObject, root: int):
    """A12, of collectives that are written as programs."""
    layer, able = written
    kind = data.draw(st.sampled_from(able))
    run = run_of(cluster, instruction(kind, root), "flow", layer)
    assert run.makespan >= least(cluster, kind, root) * (1 - 1e-9)


@pytest.mark.parametrize("kind, share", [(AllReduce, 1.75), (ReduceScatter, 0.875), (AllGather, 0.875), (Broadcast, 1)])
def test_the_bound_is_that_of_ranks_alike(kind: Any, share: float):
    """A12, and a ring without latency reaches it in both details."""
    cluster = sim.Cluster.flat(8, 12.0)
    assert least(cluster, kind) == pytest.approx(share * SIZE / 12.0)
    if kind is not Broadcast:
        for detail in ("flow", "messages"):
            assert run_of(cluster, kind(WHOLE), detail).makespan == pytest.approx(least(cluster, kind))


# ---------------------------------------------------------------- bytes are conserved


@contextmanager
def watched(cluster: sim.Cluster) -> Iterator[Counter[Any]]:
    """The bytes that begin to move over every link of a cluster; what is computed in rounds is played instead."""
    seen: Counter[Any] = Counter()
    start, played = Network.start, carrying._played

    def counted(self: Network, path: Any, size: float, *more: Any, **knobs: Any) -> None:
        if self.capacity == cluster.bandwidth:  # programs are checked on an ideal cluster first
            for link, times in path.items():
                seen[link] += size * times  # type: ignore[assignment]
        start(self, path, size, *more, **knobs)

    def apart(*of: Any) -> float:  # a play that only says how long a flow takes moves nothing here
        kept, found = Counter(seen), played(*of)
        seen.clear()
        seen.update(kept)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "start", counted)
        patch.setattr(carrying, "_played", apart)
        patch.setattr(Network, "free", lambda self, links: False)
        yield seen


@many
@given(networks, st.sampled_from([AllReduce, ReduceScatter, AllGather]), st.sampled_from(ALGORITHMS))
def test_links_carry_every_message_over_all_its_hops(cluster: sim.Cluster, kind: Any, algorithm: str):
    """Link by link: as one flow, as messages, and as the plan's messages times the links on their way; none carries
    more than it can in the time, and what ranks say that they sent is 2(n-1) times the value, or n-1 times."""
    cluster = replace(cluster, algorithm=algorithm)
    carried, runs = [], []
    for detail in ("flow", "messages"):
        with watched(cluster) as seen:
            runs.append(run_of(cluster, kind(WHOLE), detail))
        carried.append(dict(seen))
    assert carried[0] == pytest.approx(carried[1], rel=1e-9)
    plan = Planner(cluster, range(cluster.ranks)).best(kind, SIZE)
    expected: Counter[Any] = Counter()
    for _, path in plan.stages:
        for link, share in path.items():
            expected[link] += share * SIZE / plan.fraction  # type: ignore[assignment]
    assert carried[0] == pytest.approx(dict(expected), rel=1e-9)
    for run in runs:
        assert sum(run.bytes_sent) == pytest.approx(TIMES[kind] * (cluster.ranks - 1) * SIZE, rel=1e-9)
        for link, load in seen.items():
            assert load <= cluster.bandwidth(link) * run.makespan * (1 + 1e-9)


@many
@given(networks, st.sampled_from(WRITTEN), st.data())
def test_links_carry_what_programs_send(cluster: sim.Cluster, written: Any, data: st.DataObject):
    """The sum over links of what they carry is that over messages of their bytes times the links on their way."""
    layer, able = written
    with watched(cluster) as seen:
        run = run_of(cluster, instruction(data.draw(st.sampled_from(able)), 0), "flow", layer)
    hops = 0.0
    for span in run.spans:
        if span.stream.startswith("to "):
            hops += span.bytes * len(cluster.route(span.rank, int(span.stream[3:])))
    assert sum(seen.values()) == pytest.approx(hops, rel=1e-9)
    assert all(load <= cluster.bandwidth(link) * run.makespan * (1 + 1e-9) for link, load in seen.items())


# ---------------------------------------------------------------- A22, while flows come and go

LINKS = "abcdef"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(LINKS), st.sampled_from([1.0, 2.0, 0.5]), min_size=1, max_size=4),
            st.floats(0.1, 50.0),
            st.sampled_from([0.0, 0.0, 1.0, 2.5, 7.0]),
        ),
        min_size=1,
        max_size=12,
    ),
    st.tuples(*[st.floats(0.5, 10.0)] * len(LINKS)),
)
def test_rates_are_max_min_fair_at_every_instant(flows: list[tuple[dict[str, float], float, float]], speeds: Any):
    """A22: after every start and end no link is overfull, everybody has a full link on which nobody is faster, and at
    the end all bytes have moved."""
    env, capacity, ended = simpy.Environment(), dict(zip(LINKS, speeds)), []
    network = Network(env, capacity.__getitem__)
    for number, (path, size, start) in enumerate(flows):
        begin = env.timeout(start)
        begin.callbacks.append(
            lambda event, p=path, s=size, i=number: network.start(p, s, lambda: ended.append((i, env.now)))
        )
    while env.peek() < inf:
        env.step()
        if not network.started and not network.eased:
            check_fair(network)
    assert sorted(number for number, _ in ended) == list(range(len(flows)))
    for number, time in ended:  # nobody is faster than alone
        path, size, start = flows[number]
        assert time - start >= size * max(times / capacity[link] for link, times in path.items()) * (1 - 1e-9)


def check_fair(network: Network) -> None:
    """All rates of a network, at one instant."""
    active, capacity = dict.fromkeys(flow for users in network.users for flow in users), network.speeds
    load: Counter[int] = Counter()
    for flow in active:
        for link, times in flow.path.items():
            load[link] += flow.rate * times
    assert all(load[link] <= capacity[link] * (1 + 1e-9) for link in load)
    for flow in active:
        full = [link for link in flow.path if isclose(load[link], capacity[link], rel_tol=1e-9)]
        assert any(all(flow.rate >= other.rate * (1 - 1e-9) for other in network.users[link]) for link in full)
