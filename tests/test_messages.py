"""Collectives message by message: the same bytes and, where nothing contends, the same times as one flow."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import ceil, log2
from typing import Any

import pytest
from common.clusters import best
from common.orders import Beside, Only
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import AllGather, AllReduce, AllToAll, Barrier, Broadcast, Grads, Named, ReduceScatter, theory
from simulator.algorithms import stages_of, usable
from simulator.clusters import Speed
from simulator.clusters.star import Star
from simulator.exchanges import plain_script, script_of
from simulator.pieces import Pieces
from simulator.plans import LEAST, PIECES, Planner
from simulator.playing import Play
from simulator.rounds import Progress, Rounds

WHOLE = Grads(0)
KINDS = (AllReduce, ReduceScatter, AllGather, Broadcast)
some = settings(max_examples=40, deadline=None)


def run_of(cluster: sim.Cluster, size: float, *what: sim.Instruction, detail: str = "messages") -> sim.Run:
    """Instructions for a model of so many bytes; Forward takes a second at 1 FLOP/s."""
    model = sim.Model.of_times(blocks=1, forward=0, backward=0, parameters=round(size / 4))
    return sim.simulate(Only(what=what), model, cluster, steps=1, detail=detail)


def both(cluster: sim.Cluster, size: float, *what: sim.Instruction) -> tuple[float, float]:
    """How long it takes as one flow, and as messages; both send as much."""
    flow, messages = (run_of(cluster, size, *what, detail=detail) for detail in ("flow", "messages"))
    assert messages.bytes_sent == pytest.approx(flow.bytes_sent, rel=1e-9)
    return flow.makespan, messages.makespan


# ---------------------------------------------------------------- who sends what

CLUSTERS = {
    "switch": sim.cluster("single-switch", ranks=7),
    "box": sim.cluster("dgx-a100", ranks=8),
    "boxes": sim.cluster("dgx-a100", nodes=3),
    "torus": sim.cluster("torus", shape=(2, 3, 4)),
    "mesh": sim.cluster("mi300x"),
    "mixed": sim.cluster("mixed", nodes=4),
    "fat-tree": sim.cluster("fat-tree", ranks=8, per_leaf=2, oversubscription=2.0),
}


@pytest.mark.parametrize("name", CLUSTERS)
@pytest.mark.parametrize("algorithm", ["ring", "tree", "hierarchical", "direct"])
@pytest.mark.parametrize("kind", [*KINDS, AllToAll])
def test_messages_add_up_to_the_flow(name: str, algorithm: str, kind: Any):
    """Stage by stage, the same bytes between the same ranks, and as many messages one after another as it counts."""
    planner = Planner(CLUSTERS[name], range(CLUSTERS[name].ranks))
    algorithm = usable(algorithm, kind, planner.machines)
    wiring = planner.machines, planner.rings, planner.axes
    for root in (0, 3):
        stages = stages_of(algorithm, kind, *wiring, root)
        script = script_of(algorithm, kind, *wiring, root, pieces=5)
        assert len(script.depths) == len(stages)
        for number, stage in enumerate(stages):
            traffic: Counter[tuple[int, int]] = Counter()
            for lane in script.lanes:
                if lane.stage == number:
                    traffic[lane.source, lane.target] += lane.share * lane.count  # type: ignore[assignment]
            assert dict(traffic) == pytest.approx(dict(stage.traffic), rel=1e-12)
            assert kind is AllToAll or script.depths[number] == stage.inside + stage.between


@given(n=st.integers(2, 17), root=st.integers(0, 16))
def test_a_binomial_tree_reaches_everybody_once(n: int, root: int):
    lanes = plain_script(Broadcast, range(n), root % n).lanes
    assert sorted(lane.target for lane in lanes) == [rank for rank in range(n) if rank != root % n]
    have = {root % n}
    for lane in lanes:  # in order, from who has it
        assert lane.source in have
        have.add(lane.target)


# ---------------------------------------------------------------- as theory says


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 13, 16])
def test_binomial_broadcasts_take_their_closed_form(n: int):
    """A7, of any number of ranks; as long as one flow."""
    flow, messages = both(sim.Cluster.flat(n, 1e9, 1e-5), 4e6, Broadcast(WHOLE, root=n - 1))
    assert messages == pytest.approx(flow, rel=1e-9) == pytest.approx(theory.tree_broadcast(n, 4e6, 1e9, 1e-5))


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("size", [4e2, 4e6])
def test_chains_are_as_long_as_their_pieces_say(n: int, size: float):
    """A9, with latency once per hop."""
    cluster = sim.cluster("single-switch", ranks=n, bandwidth=1e9, latency=1e-5, algorithm="direct")
    flow, messages = both(cluster, size, Broadcast(WHOLE))
    pieces = 1 if size <= LEAST else PIECES * (n - 1)
    assert messages == pytest.approx(theory.pipelined(n - 1, size, 1e9, 0.0, pieces) + (n - 1) * 1e-5, rel=1e-9)
    assert messages == pytest.approx(flow, rel=1e-9)


@pytest.mark.parametrize("n", [2, 3, 4, 7, 8, 16])
def test_trees_end_within_their_pieces(n: int):
    """A10: all bytes of the busiest rank, at most 2·S, a latency for every hop, and at most a piece for each."""
    cluster = sim.cluster("single-switch", ranks=n, bandwidth=1e9, latency=1e-5, algorithm="tree")
    hops = 2 * ceil(log2(n))
    for size in (4e6, 4e7):
        busiest = size * best(cluster, AllReduce, size).slowness
        _, messages = both(cluster, size, AllReduce(WHOLE))
        assert theory.lower_bound("all_reduce", n, size, 1e9) <= busiest <= 2 * size / 1e9 * (1 + 1e-9)
        assert busiest <= messages <= busiest * (1 + 2 / PIECES) + hops * 1e-5


# ---------------------------------------------------------------- who comes when


def apart(speeds: list[float], links: list[float], latency: float = 0.0) -> sim.Cluster:
    """Ranks that take 1/speed seconds to compute, on links of these bandwidths."""
    ends = tuple(Speed(bandwidth, latency / 2) for bandwidth in links)
    devices = tuple(sim.Device("any", speed) for speed in speeds)
    star = Star(len(links), ends, ends)
    return sim.Cluster("unequal", len(links), star, devices[0], devices=devices)


def timed(cluster: sim.Cluster, size: float, order: sim.Order, detail: str = "messages") -> sim.Run:
    """Both blocks take 1 FLOP, so that every rank comes when its device has done it."""
    model = sim.Model.of_times(blocks=2, forward=0, backward=0, parameters=2 * round(size / 4))
    blocks = tuple(replace(block, forward=sim.Flops(1.0)) for block in model.blocks)
    return sim.simulate(order, replace(model, blocks=blocks), cluster, steps=1, detail=detail)


def ends_of(run: sim.Run, kind: type[sim.Collective]) -> list[float]:
    """When the collective ends on every rank."""
    found = {span.rank: span.end for span in run.spans if span.instruction.startswith(kind.__name__)}
    return [found[rank] for rank in sorted(found)]


def test_a_late_member_delays_only_what_depends_on_it():
    """Of four, the last leaf of a binomial tree comes 100 s late: everybody else is long gone."""
    cluster = apart([1.0, 1.0, 1.0, 0.01], [1.0] * 4)
    order = Only(what=(sim.Forward(0), Broadcast(WHOLE)))
    ends = ends_of(timed(cluster, 4.0, order), Broadcast)
    assert ends == pytest.approx([1 + 8.0, 1 + 8.0, 1 + 8.0, 100.0])
    assert ends_of(timed(cluster, 4.0, order, "flow"), Broadcast) == pytest.approx([108.0] * 4)


def test_a_ring_round_a_late_member():
    """Of three, with 4 s for a message: rank 2 comes at 9 s. What it sends goes 1, 2, 3, 4 hops further."""
    cluster = apart([1.0, 1.0, 1 / 9], [1.0] * 3)
    ends = ends_of(timed(cluster, 12.0, Only(what=(sim.Forward(0), AllReduce(WHOLE)))), AllReduce)
    # Rank 2 sends at 9, 13, 17 and 21; rank 0 sends at 1 and then as soon as it has something, at 13, 17 and 21.
    assert ends == pytest.approx([25.0, 25.0, 25.0])
    ends = ends_of(timed(cluster, 12.0, Only(what=(sim.Forward(0), ReduceScatter(WHOLE)))), ReduceScatter)
    assert ends == pytest.approx([17.0, 17.0, 17.0])


speeds = st.floats(0.05, 20.0)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(2, 7), st.sampled_from([AllReduce, AllGather]), st.sampled_from([0.0, 0.3]))
def test_rounds_are_exact(data: st.DataObject, n: int, kind: Any, latency: float):
    """All messages of a round computed at once, or each by its own events: whoever comes when, disturbed or not."""
    cluster = apart(*(data.draw(st.lists(speeds, min_size=n, max_size=n)) for _ in range(2)), latency)
    ranks = st.integers(0, n - 1)
    pairs = data.draw(st.lists(st.tuples(ranks, ranks).filter(lambda pair: pair[0] != pair[1]), max_size=4))
    order = Beside(what=(kind(WHOLE),), pairs=tuple(pairs))
    quick = timed(cluster, 8.0, order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Play, "_computed", lambda self: False)
        slow = timed(cluster, 8.0, order)
    spans = [sorted((s.rank, s.stream, s.instruction, s.start, s.end) for s in run.spans) for run in (quick, slow)]
    assert len(spans[0]) == len(spans[1])
    for one, other in zip(*spans):
        assert one[:3] == other[:3] and one[3:] == pytest.approx(other[3:], rel=1e-9, abs=1e-9)


def test_a_thousand_ranks_take_their_closed_form():
    """A1, with two million messages."""
    run = run_of(sim.Cluster.flat(1024, 12.5e9, 1e-5), 1e8, AllReduce(WHOLE))
    assert run.makespan == pytest.approx(theory.ring_all_reduce(1024, 1e8, 12.5e9, 1e-5), rel=1e-9)


def test_rounds_say_how_far_they_are():
    """Two lanes of two messages: at 2.5 the first has sent one, and waits for the second, whose one is on its way."""
    rounds = Rounds(2, (1, 0), [1.0, 2.0], [1.0, 1.0], [0.0, 0.0])
    assert [(list(map(float, s)), left, came) for s, left, came in rounds.each()] == [
        ([0.0, 0.0], [1.0, 2.0], [2.0, 3.0]),
        ([3.0, 3.0], [4.0, 5.0], [5.0, 6.0]),
    ]
    assert rounds.ends() == [5.0, 6.0]
    progress = Progress([0, 0], [0, 0])
    rounds.at(2.5, progress, (0, 1))
    assert (progress.left, progress.arrived) == ([1, 1], [1, 0])
    assert progress.arriving == [(1, 3.0)] and not progress.leaving
    progress = Progress([0, 0], [0, 0])
    rounds.at(4.5, progress, (0, 1))
    assert progress == Progress([2, 1], [1, 1], [(1, 5.0)], [(0, 5.0)])


def test_rounds_skip_what_repeats():
    """A slow lane among fast ones holds up all; after as many rounds as lanes, every round takes as long as it does."""
    n, count = 9, 1000
    before = tuple((lane - 1) % n for lane in range(n))
    lengths = [5.0 if lane == 3 else 1.0 + lane / 10 for lane in range(n)]
    rounds = Rounds(count, before, lengths, [0.25] * n, [lane % 3 for lane in range(n)])
    *_, (_, _, last) = rounds.each()
    assert rounds.ends() == pytest.approx(last, rel=1e-12) and max(last) == pytest.approx(count * 5.25)


def test_pieces_pass_on_no_faster_than_they_come():
    """Three lanes one after another: 4 pieces, each as long on a lane as it takes there."""
    pieces = Pieces([4, 4, 4], [(), (0,), (1,)], [1.0, 3.0, 2.0], [0.5, 0.5, 0.5], [0.0, 0.0, 20.0])
    assert pieces.times[:2] == [((1.0, 1.0),), ((4.5, 3.0),)]
    assert pieces.left() == [4.0, 13.5, 28.0] and pieces.ends() == [4.5, 14.0, 28.5]
    progress = Progress([0] * 3, [0] * 3)
    pieces.at(4.5, progress, (0, 1, 2))
    assert progress == Progress([4, 1, 0], [4, 0, 0], [(1, 7.5)], [(1, 5.0)])


# ---------------------------------------------------------------- the rest of a simulation


EXCHANGE = AllToAll(WHOLE, counts=Named("counts"), into=Named("into"), arrived=Named("arrived"))


@pytest.fixture
def evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody has as much for everybody."""
    monkeypatch.setattr(sim.Rank, "imbalance", lambda me, value: 1.0)


@pytest.mark.usefixtures("evenly")
@pytest.mark.parametrize("n", [2, 5, 8])
def test_all_to_all_in_rounds_of_pairs(n: int):
    """A11."""
    flow, messages = both(sim.Cluster.flat(n, 1e9, 1e-5), 8e6 * n, EXCHANGE)
    assert messages == pytest.approx(flow, rel=1e-9)
    assert messages == pytest.approx(theory.pairwise_all_to_all(n, 8e6 * n, 1e9, 1e-5), rel=1e-9)


@pytest.mark.usefixtures("evenly")
@pytest.mark.parametrize("name", ["box", "boxes", "torus", "mesh", "fat-tree"])
def test_all_to_all_at_once(name: str):
    """Everybody sends to everybody at one time: the fullest link is full to the end, so it is as one flow."""
    flow, messages = both(CLUSTERS[name], 4e7, EXCHANGE)
    assert messages == pytest.approx(flow, rel=1e-9)


@pytest.mark.usefixtures("evenly")
def test_all_to_all_passes_the_trunks_that_it_must():
    """Two leaves of 4 ranks and one trunk of 1 B/s: of 8 bytes for everybody, 4·4 go over it each way."""
    cluster = sim.cluster("fat-tree", ranks=8, per_leaf=4, oversubscription=4.0, bandwidth=1.0, latency=0.0)
    flow, messages = both(cluster, 64.0, EXCHANGE)
    assert flow == pytest.approx(4 * 4 * 8.0, rel=1e-5) == messages


def test_gathers_of_values_that_may_differ_and_barriers():
    for cluster in (sim.Cluster.flat(3, 4.0, 1.0), sim.cluster("dgx-a100", ranks=4, algorithm="ring")):
        flow, messages = both(cluster, 12.0, AllGather(WHOLE, into=Named("all"), ragged=True))
        assert messages == pytest.approx(flow, rel=1e-9)
        flow, messages = both(cluster, 12.0, Barrier())
        assert messages == flow > 0


LEARNERS = [
    (sim.DataParallel(broadcast=True), "digits-mlp", 4),
    (sim.Sharded(), "digits-mlp", 3),
    (sim.ExpertParallel(), "tiny-moe", 2),
]


@pytest.mark.parametrize("strategy, problem, ranks", LEARNERS, ids=lambda value: str(value))
def test_learning_is_the_same(strategy: Any, problem: str, ranks: int):
    """Tensors do not care how bytes travel, and as many of them do."""
    cluster, runs = sim.Cluster.flat(ranks, 1e8, 1e-5), []
    for detail in ("flow", "messages"):
        runs.append(sim.simulate(strategy, sim.problem(problem), cluster, steps=1, detail=detail))
    assert runs[0].losses == runs[1].losses
    assert all((runs[0].parameters[name] == value).all() for name, value in runs[1].parameters.items())
    assert runs[1].bytes_sent == pytest.approx(runs[0].bytes_sent, rel=1e-12)


def test_with_jitter_it_is_deterministic_and_about_as_long():
    model = sim.Model.of_times(blocks=4, forward=1e-3, backward=2e-3, parameters=4_000_000)
    cluster, noise = sim.Cluster.flat(8, 1e9, 1e-5), sim.noise.lognormal(0.1)
    runs = [
        sim.simulate(sim.DataParallel(bucket_bytes=0), model, cluster, steps=3, noise=noise, detail=detail)
        for detail in ("flow", "messages", "messages")
    ]
    assert list(runs[1].spans) == list(runs[2].spans)
    assert runs[1].makespan == pytest.approx(runs[0].makespan, rel=0.05)
