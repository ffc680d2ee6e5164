"""Folding: simulating ranks that behave alike once gives what simulating all of them gives."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from cases import SYNCHRONOUS, Case
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator.folding import EVERY

STATIC = [case for case in SYNCHRONOUS if sim.stack(case.strategy).order.static]
CELLS = [(case, 8 if case.grows else max(case.ranks)) for case in STATIC if max(case.ranks) > 1]
BIG = sim.transformer(layers=8, hidden=1024, heads=16, sequence=512, vocab=32000)


def close(one: object, other: object) -> bool:
    return one == pytest.approx(other, rel=1e-9, abs=1e-12)


def same(strategy: object, workload: object, cluster: sim.Cluster, **knobs: object) -> sim.Run:
    """The folded run, once all its numbers agree with those of one in which every rank is simulated."""
    one = sim.simulate(strategy, workload, cluster, fold="always", **knobs)
    all_ = sim.simulate(strategy, workload, cluster, fold=False, **knobs)
    assert not all_.alike
    for name in ("makespan", "step_times", "busy", "exposed_communication", "bubble", "bytes_sent", "in_flight"):
        assert close(getattr(one, name), getattr(all_, name)), name
    assert len(one.spans) <= len(all_.spans)
    assert one.workers == all_.workers and one.slices == all_.slices
    return one


def wired(ranks: int) -> Sequence[sim.Cluster]:
    """Clusters where bytes take time, alike for all ranks and not."""
    chips = tuple(sim.Device(f"chip {rank % 2}", flops=1e9 * (1 + rank % 2)) for rank in range(ranks))
    return sim.cluster("single-switch", ranks=ranks, device=chips), sim.cluster("dgx-a100", ranks=ranks)


@pytest.mark.parametrize("case, ranks", CELLS, ids=[f"{case}-on-{ranks}" for case, ranks in CELLS])
def test_folded_is_unfolded(case: Case, ranks: int):
    model = case.shared(sim.Model.of_times(blocks=4 * ranks, parameters=4800 * ranks, activation_bytes=64, batch=60))
    for cluster in wired(ranks):
        same(case.strategy, model, cluster, steps=4)


MIXES = {
    "data": (sim.DataParallel(), (1, 1)),
    "data, uneven samples": (sim.DataParallel(), (2, 2)),
    "ZeRO-1": (sim.Sharded(1), (1, 1)),
    "ZeRO-3": (sim.Sharded(3), (1, 1)),
    "tensor x data": (sim.Hybrid(data=4, tensor=4), (1, 1)),
    "tensor x data x pipeline": (sim.Hybrid(data=2, tensor=2, pipeline=4, microbatches=4), (0, 4)),
    "sequence x data x interleaved": (
        sim.Hybrid(data=4, tensor=2, pipeline=2, microbatches=4, sequence=True, schedule="interleaved", chunks=2),
        (2, 2),
    ),
    "zero x tensor x pipeline": (sim.Hybrid(data=4, tensor=2, pipeline=2, zero=2, microbatches=4), (2, 2)),
    "context x data": (sim.Hybrid(data=8, context=2), (2, 2)),
    "clipped": (sim.stack(sim.Hybrid(data=8, tensor=2), sim.GlobalClip(1.0)), (2, 2)),
}  # fmt: skip
"""Strategies, and how many ranks are simulated of 16 on two machines, in one pod or two; 0: they are not folded.

In one pod the replicas of a stage, two to a machine, have wires between a card and a switch in common.
"""


@pytest.mark.parametrize("name", MIXES)
@pytest.mark.parametrize("pods", [1, 2], ids=["one pod", "two pods"])
def test_machines_fold(name, pods):
    """So many ranks are simulated, neither more nor fewer, and where links are in common it says so."""
    strategy, counts = MIXES[name]
    cluster = sim.cluster("dgx-a100", nodes=2, pod=2 // pods)
    batch = 36 if "uneven" in name else 64
    run = same(strategy, BIG, cluster, steps=2, batch=batch)
    assert len(set(run.alike)) == counts[pods - 1]
    assert ("belong to no rank alone" in run.notes.get("not folded", "")) == (not run.alike)


def test_who_shares_cards_or_switches_is_not_folded():
    """One card for 8 ranks, or fewer links up than ranks below: others' bytes pass there too."""
    for knobs in (dict(cards=1), dict(pod=1, oversubscription=2.0), dict(pod=1, routing="ecmp")):
        run = same(sim.DataParallel(), BIG, sim.cluster("dgx-a100", nodes=2, **knobs), batch=64, steps=1)
        assert not run.alike


SLOW = {
    "a straggler": ({}, sim.noise.slow({5: 2.0})),
    "two, one for a while": ({}, sim.noise.slow({3: 2.0}) * sim.noise.slow({9: 1.5}, steps=[1])),
    "a rank's links": ({5: 4.0}, None),
    "a card, one way": ({(("nic", 0, 1), ("leaf", 0, 1)): 3.0}, None),
    "both": ({5: 4.0}, sim.noise.slow({12: 2.0})),
}


@pytest.mark.parametrize("mix", ["ZeRO-3", "tensor x data", "zero x tensor x pipeline"])
@pytest.mark.parametrize("name", SLOW)
def test_slow_ranks_are_simulated_and_the_rest_folds(name: str, mix: str):
    """Who is slow for good, or for known steps, is told apart, and so are those who wait for it."""
    links, noise = SLOW[name]
    cluster = sim.cluster("dgx-a100", nodes=2)
    knobs = {} if noise is None else {"noise": noise}
    run = same(MIXES[mix][0], BIG, cluster.slowed(links) if links else cluster, steps=2, batch=64, **knobs)
    assert MIXES[mix][1][0] < len(set(run.alike)) < 16 and "not folded" not in run.notes


def test_slow_switches_are_everybody_s():
    """Nobody is told apart by a link that is no rank's own: all are simulated."""
    cluster = sim.cluster("dgx-a100", nodes=4, pod=2)
    link = ("leaf", 0, 0), ("spine", 0)
    assert same(sim.DataParallel(), BIG, cluster, steps=1, batch=64).alike
    assert not same(sim.DataParallel(), BIG, cluster.slowed({link: 100.0}), steps=1, batch=64).alike


def test_few_ranks_are_all_simulated():
    assert not sim.simulate(sim.DataParallel(), BIG, sim.cluster("ideal", ranks=EVERY), batch=EVERY, steps=1).alike
    run = sim.simulate(sim.DataParallel(), BIG, sim.cluster("ideal", ranks=EVERY + 1), batch=EVERY + 1, steps=1)
    assert set(run.alike) == {0} and len(run.busy) == EVERY + 1


def test_luck_is_everybody_s_own():
    cluster = sim.cluster("ideal", ranks=EVERY + 2)
    for law in (sim.noise.lognormal(0.1), sim.noise.silicon(), sim.noise.slow({0: 2.0}) * sim.noise.gamma(4.0)):
        noisy = sim.simulate(sim.DataParallel(), BIG, cluster, batch=132, steps=1, noise=law)
        assert not noisy.alike and len(set(noisy.busy)) > 2


def test_a_folded_run_is_saved_whole(tmp_path):
    strategy, cluster = sim.Hybrid(data=16, tensor=8), sim.cluster("dgx-a100", nodes=16)
    run = sim.simulate(strategy, BIG, cluster, batch=64, steps=1)
    run.save(tmp_path / "run")
    loaded = sim.Run.load(tmp_path / "run")
    assert loaded == run and loaded.alike == run.alike and loaded.bytes_sent == run.bytes_sent
    assert len(loaded.busy) == 128


@settings(max_examples=15, deadline=None)
@given(
    axes=st.permutations(["data", "tensor", "pipeline"]),
    sizes=st.lists(st.sampled_from([1, 2, 3, 4]), min_size=3, max_size=3),
    batch=st.integers(24, 60),
    zero=st.sampled_from([0, 1, 3]),
    width=st.sampled_from([1, 2, 4, 8]),
)
def test_any_mix_folds_to_the_same_times(axes, sizes, batch, zero, width):
    """Machines of any width cut groups anywhere; samples need not be shared evenly."""
    mix = dict(zip(axes, sizes))
    ranks = mix["data"] * mix["tensor"] * mix["pipeline"]
    strategy = sim.Hybrid(**mix, zero=zero if mix["data"] > 1 else 0, microbatches=2)
    cluster = sim.cluster("dgx-a100", nodes=-(-ranks // 8)).subset(range(ranks)) if ranks > 1 else None
    if cluster is None:
        return
    same(strategy, sim.transformer(layers=4, hidden=192, heads=12, sequence=64, vocab=1000), cluster, batch=batch)
