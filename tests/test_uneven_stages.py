"""Pipelines on devices of different speeds: stages of unevenly many blocks."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from common.speeds import TERA, machines, model, seconds
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim

# ---------------------------------------------------------------- stages of a pipeline


def test_b14_the_slowest_stage_sets_the_pace():
    """Stage times 1, 1, 3, 1: a third of a microbatch per unit of time, as there are more and more of them."""
    work = model(blocks=4, batch=600, teraflop=4 / 3)
    cluster = machines(1.0, 1.0, 1 / 3, 1.0)
    times = [seconds(sim.Pipeline("gpipe", m), work.with_batch(m), cluster) for m in (200, 400)]
    assert 200 / (times[1] - times[0]) == pytest.approx(1 / 3, rel=1e-3)


def test_stages_of_blocks_in_proportion_to_speed_keep_everybody_busy():
    cluster, work = machines(3.0, 1.0), model(blocks=8, batch=64)
    split = sim.balanced_stages(cluster, work)
    assert split == (6, 2)
    for schedule in ("gpipe", "1f1b"):
        even = seconds(sim.Pipeline(schedule, 32), work, cluster)
        fair = seconds(sim.Pipeline(schedule, 32, split=split), work, cluster)
        a_microbatch = 2 * 3 / 8  # 2 samples of 3 TFLOP on 8 blocks: seconds for each block at 1 TFLOP/s
        assert fair == pytest.approx((32 + 2 - 1) * 2 * a_microbatch)
        assert even == pytest.approx(31 * 4 * a_microbatch + 4 * a_microbatch * (1 + 1 / 3))


@settings(max_examples=40, deadline=None)
@given(
    work=st.lists(st.floats(0.1, 5.0), min_size=3, max_size=8),
    speeds=st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=1, max_size=3),
)
def test_no_other_stages_have_a_faster_slowest(work: list[float], speeds: list[float]):
    blocks = tuple(sim.Block(1, sim.Flops(one * TERA), sim.Flops(one * TERA)) for one in work)
    found = sim.balanced_stages(machines(*speeds), sim.Model("uneven", blocks))

    def slowest(ends: tuple[int, ...]) -> float:
        bounds = [0, *ends, len(work)]
        return max(sum(work[a:b]) / speed for a, b, speed in zip(bounds, bounds[1:], speeds))

    assert sum(found) == len(work) and min(found) >= 1
    best = min(slowest(ends) for ends in combinations(range(1, len(work)), len(speeds) - 1))
    assert slowest(tuple(np.cumsum(found)[:-1])) == pytest.approx(best)


@pytest.mark.parametrize("schedule, chunks", [("1f1b", 1), ("interleaved", 2), ("zb-h1", 1), ("zbv", 2)])
def test_split_says_how_many_blocks_each_stage_or_chunk_has(schedule: str, chunks: int):
    split = (3, 1, 2, 4)[: 2 * chunks]
    pipeline = sim.Pipeline(schedule, 2, chunks=chunks, split=split)
    listing = sim.listing(pipeline, ranks=2, workload=model(blocks=sum(split), batch=8))
    had = [{int(text.split()[1]) for text in column if text.startswith("Forward ")} for column in listing.columns]
    starts = [0, *np.cumsum(split)]
    chunk_of = [set(range(a, b)) for a, b in pairwise(starts)]
    loop = {0: [0, 2], 1: [1, 3]} if schedule == "interleaved" else {0: [0, 3], 1: [1, 2]}
    mine = loop if chunks == 2 else {0: [0], 1: [1]}
    assert had == [set().union(*(chunk_of[number] for number in mine[rank])) for rank in (0, 1)]


def test_a_split_needs_a_number_for_each_stage():
    with pytest.raises(ValueError, match="for each of 2 stage"):
        sim.simulate(sim.Pipeline(split=(1, 2, 3)), model(blocks=6), sim.cluster("ideal", ranks=2), steps=1)
    with pytest.raises(ValueError, match=r"a number of blocks for each stage.*got split=3"):
        sim.Pipeline(split=3)
    with pytest.raises(ValueError, match="for each of 2 stage"):
        sim.simulate(sim.PipeDream(split=(1, 2, 3)), model(blocks=6), sim.cluster("ideal", ranks=2), steps=1)
