"""Links that have less bandwidth than they should: who is slowed, and who is not."""

from __future__ import annotations

import pytest
from common.speeds import seconds

import simulator as sim
from simulator import theory

# ---------------------------------------------------------------- slow links


def test_a_slow_link_slows_the_whole_ring():
    """A1 with the bandwidth of the slowest: every byte of a ring passes every rank."""
    n, size, bandwidth, latency = 8, 1e8, 12.5e9, 1e-5
    work = sim.Model.of_times(blocks=1, forward=0.0, backward=0.0, parameters=int(size) // 4)
    flat = sim.Cluster.flat(n, bandwidth, latency)
    assert seconds(sim.DataParallel(), work, flat) == pytest.approx(theory.ring_all_reduce(n, size, bandwidth, latency))
    for where in ({3: 4.0}, {(3, "switch"): 4.0}, {("switch", 5): 4.0}, {3: 2.0, (3, "switch"): 2.0}):
        found = seconds(sim.DataParallel(), work, flat.slowed(where))
        assert found == pytest.approx(theory.ring_all_reduce(n, size, bandwidth / 4, latency))


def test_a_slow_link_slows_only_those_who_use_it():
    flat = sim.Cluster.flat(4, 1e6)
    slow = flat.slowed({(0, "switch"): 3.0})
    assert [slow.bandwidth((rank, "switch")) for rank in range(4)] == [1e6 / 3, 1e6, 1e6, 1e6]
    assert slow.bandwidth(("switch", 0)) == 1e6 and slow.latency(0, 1) == flat.latency(0, 1)
    assert slow.graph.edges[0, "switch"]["bandwidth"] == pytest.approx(1e6 / 3)
    work = sim.Model.of_times(blocks=1, forward=0.0, backward=0.0, parameters=10**6)
    jobs = [sim.Job(sim.DataParallel(), work, ranks, steps=1) for ranks in ((0, 1), (2, 3))]
    assert [run.makespan for run in sim.simulate_jobs(jobs, slow)] == pytest.approx([12.0, 4.0])


@pytest.mark.parametrize("name, knobs", [("dgx-a100", {"nodes": 2}), ("torus", {"shape": (2, 4)}), ("mi300x", {})])
def test_a_factor_of_one_changes_nothing(name: str, knobs: dict[str, object]):
    cluster = sim.cluster(name, **knobs)  # type: ignore[arg-type]
    work = sim.Model.of_times(blocks=4, forward=1e-3, backward=2e-3, parameters=10**8, batch=16)
    same = cluster.slowed({0: 1.0})
    assert seconds(sim.DataParallel(), work, same) == seconds(sim.DataParallel(), work, cluster)
    assert seconds(sim.DataParallel(), work, cluster.slowed({0: 8.0})) > seconds(sim.DataParallel(), work, cluster)


def test_slow_links_that_are_not_there_are_refused():
    flat = sim.Cluster.flat(4, 1e6)
    for where in ({4: 2.0}, {(0, 1): 2.0}, {"switch": 2.0}):
        with pytest.raises(ValueError, match=r"cluster\.graph\.edges"):
            flat.slowed(where)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        flat.slowed({0: 0.5})
    with pytest.raises(ValueError, match="a dict"):
        flat.slowed([0])  # type: ignore[arg-type]


def test_a_part_of_a_cluster_is_slowed_by_its_own_numbers():
    whole = sim.Cluster.flat(8, 1e9)
    work = sim.Model.of_times(blocks=1, forward=0.0, backward=0.0, parameters=10**8)
    slow = seconds(sim.DataParallel(), work, whole.slowed({4: 10.0}).subset(range(4, 8)))
    assert seconds(sim.DataParallel(), work, whole.subset(range(4, 8)).slowed({0: 10.0})) == slow
    turned = whole.subset([3, 0, 1, 2]).slowed({3: 10.0})
    assert turned.bandwidth((2, "switch")) == 1e8 and turned.bandwidth((3, "switch")) == 1e9
