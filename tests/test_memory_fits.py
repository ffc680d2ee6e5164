"""A plan that does not fit is refused before it is simulated; memory of many ranks is read from few programs."""

from __future__ import annotations

import pickle
from dataclasses import replace
from time import process_time

import pytest

import simulator as sim
from simulator import theory
from simulator.checking import ensure_valid
from simulator.memory import Reader, Text, read
from simulator.rules import Adam
from simulator.settling import settled

GB = 1e9
SMALL = sim.transformer(layers=6, hidden=256, heads=4, sequence=128, vocab=1024, batch=64)


def cluster(ranks: int, memory: float | None) -> sim.Cluster:
    """Devices with so much memory [B]."""
    return replace(sim.cluster("ideal", ranks=ranks), device=sim.Device("a card", memory=memory))


# ---------------------------------------------------------------- fits or not


def test_it_fits_to_the_byte():
    needed = sim.memory(sim.DataParallel(), SMALL, 2)[0].most.total
    assert sim.simulate(sim.DataParallel(), SMALL, cluster(2, needed), steps=1).peak_memory == [needed] * 2
    with pytest.raises(sim.OutOfMemoryError) as found:
        sim.simulate(sim.DataParallel(), SMALL, cluster(2, needed - 1), steps=1)
    error = found.value
    assert (error.rank, error.needed, error.available) == (0, needed, needed - 1)
    assert error.held == sim.memory(sim.DataParallel(), SMALL, 2)[0].most


def test_the_text_says_who_what_by_how_much_and_what_helps():
    model = sim.model("gpt3-175b", batch=64)
    plan = sim.stack(sim.Pipeline("1f1b", 64, stages=8), sim.TensorParallel(ways=8))
    with pytest.raises(ValueError, match=r"100\.\d GB in Forward .*, 20\.\d GB more than the 80\.0 GB of") as found:
        sim.simulate(plan, model, sim.cluster("dgx-a100", nodes=8), steps=1)
    said = str(found.value)
    places = [said.index(kind) for kind in ("activations", "optimizer state", "parameters", "gradients")]
    assert places == sorted(places)  # the largest first
    helps = [said.index(one) for one in ("'selective'", "'full'", "sequence=True", "more stages", "fit=False")]
    assert helps == sorted(helps)


def test_the_remedy_that_is_named_first_helps():
    """175B on 64 cards of 80 GB, as Korthikanti et al. 2022 ran it: not without recomputation."""
    plan = sim.stack(sim.Pipeline("1f1b", 16, stages=8), sim.TensorParallel(ways=8))
    cards = sim.cluster("dgx-a100", nodes=8)
    run = sim.simulate(plan, sim.model("gpt3-175b"), cards, steps=1, batch=16, recompute="selective")
    assert max(run.peak_memory) < 80 * GB


def test_states_that_are_too_large_are_to_be_split():
    with pytest.raises(sim.OutOfMemoryError, match=r"this order: Sharded with a higher stage"):
        sim.simulate(sim.DataParallel(), sim.model("gpt3-175b", batch=8), sim.cluster("dgx-h100", nodes=1), steps=1)


@pytest.mark.parametrize("fits", [cluster(2, None), cluster(2, 1e12)], ids=["nobody knows", "plenty"])
def test_nothing_is_said_otherwise(fits: sim.Cluster):
    assert sim.simulate(sim.DataParallel(), SMALL, fits, steps=1).makespan > 0


def test_one_may_ask_for_the_time_all_the_same():
    small = cluster(2, 1e3)
    assert sim.simulate(sim.DataParallel(), SMALL, small, steps=1, fit=False).makespan > 0
    with pytest.raises(ValueError, match="fit"):
        sim.simulate(sim.DataParallel(), SMALL, small, fit="no")  # type: ignore[arg-type]


def test_each_rank_is_held_against_its_own_device():
    devices = tuple(sim.Device("a card", memory=size) for size in (1e12, 1e3))
    mixed = replace(cluster(2, None), devices=devices)
    with pytest.raises(sim.OutOfMemoryError) as found:
        sim.simulate(sim.DataParallel(), SMALL, mixed, steps=1)
    assert found.value.rank == 1


def test_programs_without_text_are_not_judged():
    run = sim.simulate(sim.ParameterServer(mode="async"), SMALL, cluster(3, 1e3), steps=1)
    assert run.makespan > 0


def test_the_error_travels_between_processes():
    held = sim.Footprint(parameters=2.0)
    error = pickle.loads(pickle.dumps(sim.OutOfMemoryError("too large", 3, 2.0, 1.0, held)))
    assert (str(error), error.rank, error.needed, error.available, error.held) == ("too large", 3, 2.0, 1.0, held)


# ---------------------------------------------------------------- what is assumed


def test_a_model_of_operations_is_updated_by_adam_C1():
    """In 2 bytes with a master copy, 16 bytes a parameter; in 4 bytes without one, 16 as well."""
    for dtype in ("bf16", "fp32"):
        model = sim.with_knobs(SMALL, dtype=dtype)
        peak = sim.memory(sim.Single(), model, 1)[0].peak
        assert peak.parameters + peak.gradients + peak.optimizer == theory.model_states(model.parameters)
    times = sim.Model.of_times(blocks=2, parameters=100)
    assert sim.memory(sim.Single(), times, 1)[0].peak == sim.Footprint(400, 400)


# ---------------------------------------------------------------- many ranks


def test_ranks_that_are_alike_share_what_is_read_of_one():
    plan = sim.stack(sim.Pipeline(stages=2), sim.DataParallel(replicas=4), sim.TensorParallel(ways=2))
    found = sim.memory(plan, SMALL, 16)
    assert len({id(one) for one in found}) == 2 and [found.index(one) for one in found] == [0] * 8 + [8] * 8


@pytest.mark.parametrize("strategy", [sim.ParameterServer(), sim.Gossip(), sim.Sharded(3), sim.PipeDream()], ids=str)
def test_ranks_that_are_not_alike_are_told_apart(strategy: sim.Order | sim.Layer):
    """Whoever is spared holds what its own program says."""
    from simulator.memory import Reader

    model = sim.Model.of_times(blocks=8, parameters=8 * 64, activation_bytes=8.0, batch=16)
    text = Text(sim.stack(strategy), model, 4, Adam()).complete()
    reader = Reader(text, text.precision)
    own = [reader.memory(rank, reader.says(reader.rank(rank))).peak for rank in range(4)]
    assert [one.peak for one in read(text)] == own


PLANS = (
    sim.Hybrid(data=2, tensor=2, pipeline=2, microbatches=2),
    sim.Hybrid(data=4, tensor=2, zero=3, sequence=True),
    sim.stack(sim.Hybrid(data=4, tensor=2), sim.GlobalClip(1.0)),
    sim.Hybrid(context=2, data=4),
)


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_who_says_the_same_holds_the_same(plan: sim.Stack):
    """What ranks are known to say saves reading them again; it changes nothing."""
    model = sim.with_knobs(SMALL, batch=16)
    told = ensure_valid(plan, 8, model)
    assert told is not None and len(told.texts) < 8
    text = Text(plan, model, 8, None, told).complete()
    reader = Reader(text, text.precision)
    assert reader.known() is not None
    own = [reader.memory(rank, reader.says(reader.rank(rank))) for rank in range(8)]
    for one, other in zip(read(text), own, strict=True):
        assert [moment.held for moment in one.over_time] == [moment.held for moment in other.over_time]


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "zb-h1", "zb-h2", "interleaved"])
def test_a_pipeline_that_is_full_needs_no_more_B3(schedule: str):
    model = sim.Model.of_times(blocks=8, parameters=800, activation_bytes=8.0, batch=32)
    text = Text(sim.stack(sim.Pipeline(schedule, 32, stages=4)), model, 4, None)
    assert [one.most.total for one in settled(text)] == [one.most.total for one in read(text)]


def test_16384_ranks_are_quick():
    """16 stages of GPT-3, 24 microbatches: 16 programs are read. A bound of CPU time, wide for slow machines."""
    plan = sim.stack(sim.Pipeline("1f1b", 24, stages=16), sim.DataParallel(replicas=128), sim.TensorParallel(ways=8))
    model = sim.transformer(layers=96, hidden=12288, heads=96, sequence=2048, vocab=51200, batch=24 * 128)
    begin = process_time()
    found = sim.memory(plan, model, 16384)
    assert process_time() - begin < 4 and len(found) == 16384 and len({id(one) for one in found}) == 16
