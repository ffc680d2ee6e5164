"""How far more ranks help, and when a faster network does: laws of scaling, met by runs of the virtual clock."""

from __future__ import annotations

from dataclasses import replace

import pytest
from common.speeds import model
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from lab.truth.machines import Machines
from simulator import theory
from simulator.work import Scaled

cases = settings(max_examples=15, deadline=None)
shares = st.floats(0.001, 0.5)


def step(workload: sim.Model, cluster: sim.Cluster, strategy: object = None) -> float:
    """Seconds of a step; gradients of a block are averaged by themselves."""
    order = sim.DataParallel(bucket_bytes=0) if strategy is None else strategy
    return sim.simulate(order, workload, cluster, steps=1).makespan  # type: ignore[arg-type]


# ---------------------------------------------------------------- G4: Amdahl and Gustafson


def with_overhead(n: int, samples: int, serial: float, of: float) -> float:
    """A step on n ranks and a free network: 3 s a sample, and what takes ``serial`` of ``of`` + itself on any rank."""
    fixed = serial / (1 - serial) * of / 2  # forward and backward each have it once
    return step(model(batch=samples, overhead=fixed), sim.cluster("ideal", ranks=n))


@cases
@given(n=st.integers(1, 48), each=st.integers(1, 4), serial=shares)
def test_g4_the_same_batch_on_more_ranks_obeys_amdahl(n: int, each: int, serial: float):
    alone, together = (with_overhead(ranks, n * each, serial, of=3.0 * n * each) for ranks in (1, n))
    assert alone / together == pytest.approx(theory.amdahl(serial, n), rel=1e-9)
    assert alone / together <= 1 / serial


@cases
@given(n=st.integers(1, 48), each=st.integers(1, 4), serial=shares)
def test_g4_a_batch_that_grows_with_the_ranks_obeys_gustafson(n: int, each: int, serial: float):
    alone, together = (with_overhead(ranks, n * each, serial, of=3.0 * each) for ranks in (1, n))
    assert alone / together == pytest.approx(theory.gustafson(serial, n), rel=1e-9)


# ---------------------------------------------------------------- G5, G6: data parallelism without overlap

SIZE, BANDWIDTH, LATENCY = 4e8, 1e9, 1e-3


def ring(ranks: int, compute: float, size: float = SIZE, latency: float = LATENCY) -> float:
    """A step of a model of one block, whose gradients are there when all is computed."""
    work = sim.Model.of_times(blocks=1, forward=compute / 3, backward=compute * 2 / 3, parameters=round(size / 4))
    return step(work, sim.Cluster.flat(ranks, bandwidth=BANDWIDTH, latency=latency))


@cases
@given(n=st.integers(2, 64), efficiency=st.floats(0.1, 0.99))
def test_g5_ranks_that_compute_so_long_stay_as_efficient(n: int, efficiency: float):
    compute = theory.isoefficiency(n, efficiency, SIZE, BANDWIDTH, LATENCY)
    assert compute / ring(n, compute) == pytest.approx(efficiency, rel=1e-9)


def test_g5_bandwidth_saturates_and_latency_grows():
    many = (2, 8, 32, 128)
    of_bandwidth = [ring(n, 0.0, latency=0.0) for n in many]
    assert sorted(of_bandwidth) == of_bandwidth and max(of_bandwidth) < 2 * SIZE / BANDWIDTH < 1.01 * of_bandwidth[-1]
    of_latency = [ring(n, 0.0) - without for n, without in zip(many, of_bandwidth)]
    assert of_latency == pytest.approx([2 * (n - 1) * LATENCY for n in many])


@pytest.mark.parametrize("compute", [0.1, 1.0, 10.0])
def test_g6_weak_scaling_ends_at_a_constant(compute: float):
    """Ranks are added with their work: efficiency falls, but never below that of two times the gradients."""
    found = [compute / ring(n, compute, latency=0.0) for n in (2, 8, 32, 128)]
    assert found == pytest.approx([theory.weak_efficiency(n, compute, SIZE, BANDWIDTH) for n in (2, 8, 32, 128)])
    least = compute / (compute + 2 * SIZE / BANDWIDTH)
    assert found == sorted(found, reverse=True) and least < found[-1] < 1.01 * least


# ---------------------------------------------------------------- G10: when a faster network pays


@cases
@given(each=st.floats(0.01, 20.0), blocks=st.integers(2, 8), n=st.integers(2, 6))
def test_g10_a_faster_network_pays_until_all_is_hidden(each: float, blocks: int, n: int):
    """The kink: while gradients of a block are averaged, the one before is computed backward, for 2 s.

    The first block has hardly any parameters, so that little stands at the end: on a network that needs at most 2 s a
    block no upgrade helps; on a slower one every second saved per block is saved as often as there are other blocks.
    """
    work = sim.Model.of_times(blocks=blocks, forward=1.0, backward=2.0, parameters=1000 * blocks)
    work = replace(work, blocks=(replace(work.blocks[0], parameters=1), *work.blocks[1:]))
    bandwidth = theory.ring_all_reduce(n, 4000.0, 1.0) / each
    found = step(work, sim.Cluster.flat(n, bandwidth=bandwidth))
    flat, linear = 3.0 * blocks, blocks + 2.0 + (blocks - 1) * each
    assert found == pytest.approx(max(flat, linear) + each / 1000, rel=1e-9)


# ---------------------------------------------------------------- G3: Horovod's benchmarks

HOROVOD = {"inception-v3": (142, 0.90), "resnet-101": (133, 0.90), "vgg-16": (154, 0.68)}
"""Images per second of one P100, and the efficiency of 512, in 128 servers with one card of 25 Gbit/s each."""


@pytest.mark.parametrize("overlap", [False, True])
def test_g3_horovod_scales_worst_where_parameters_are_many(overlap: bool):
    """Within 15 points of what its authors measured, whether all gradients overlap the backward pass or none does."""
    found = {name: efficiency(name, rate, overlap) for name, (rate, _) in HOROVOD.items()}
    assert found == pytest.approx({name: told for name, (_, told) in HOROVOD.items()}, abs=0.15)
    assert min(found, key=found.__getitem__) == "vgg-16"
    if not overlap:  # 2(m-1)/m of the gradients pass the card of each of m servers
        wire = {name: 4 * sim.model(name).parameters * 2 * 127 / 128 / 3.125e9 for name in HOROVOD}
        whole = {name: 1 / (1 + wire[name] * rate / 64) for name, (rate, _) in HOROVOD.items()}
        assert found == pytest.approx(whole, rel=0.02)


def efficiency(name: str, rate: float, overlap: bool) -> float:
    """Of 128 servers of four P100s, which compute as fast as one was measured to, with 64 images each."""
    machines = Machines("p100-sxm2", width=4, card=25e9 / 8, latency=2e-6, library=None).cluster(nodes=128)
    whole, alone = sim.model(name, dtype="fp32", batch=64), 64 / rate
    if overlap:
        faster = alone / step(whole, machines.subset([0]), sim.Single())
        work = replace(whole, blocks=tuple(scaled(block, faster) for block in whole.blocks))
    else:
        work = replace(whole, blocks=(sim.Block(whole.parameters, sim.Seconds(alone / 3), sim.Seconds(alone * 2 / 3)),))
    return alone / step(work.with_batch(64 * 512), machines, sim.DataParallel(bucket_bytes=64 * 2**20))


def scaled(block: sim.Block, factor: float) -> sim.Block:
    """The same block, which takes so many times as long."""
    return replace(block, forward=Scaled(block.forward, factor), backward=Scaled(block.backward, factor))
