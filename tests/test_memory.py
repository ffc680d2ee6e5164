"""Memory by kind, read from programs: the closed forms of mixed precision, sharding and pipelines."""

from __future__ import annotations

from dataclasses import replace
from math import isclose

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import theory
from simulator.intervals import Intervals
from simulator.rules import LAMB, LARS, SGD, Adam, Clipped, Groups, Momentum, Scaled

BLOCKS, EACH = 16, 640
MODEL = sim.Model.of_times(blocks=BLOCKS, parameters=BLOCKS * EACH, batch=16)
ACTIVE = sim.Model.of_times(blocks=BLOCKS, parameters=BLOCKS * EACH, activation_bytes=8, batch=16)
MIXED = sim.MixedPrecision("bf16")
some = settings(max_examples=25, deadline=None)


def most(strategy, ranks: int, model: sim.Model = MODEL, **knobs) -> list[float]:
    """The most that each rank holds at once."""
    return [rank.most.total for rank in sim.memory(strategy, model, ranks, **knobs)]


# ---------------------------------------------------------------- model states: C1


def test_mixed_precision_with_adam_takes_16_bytes_per_parameter_C1():
    one = sim.memory(sim.stack(sim.Single(rule=Adam()), MIXED), MODEL, ranks=1)[0]
    parameters = MODEL.parameters
    assert one.peak == sim.Footprint(2 * parameters, 2 * parameters, 12 * parameters)
    assert one.most.total == theory.model_states(parameters) == 16 * parameters
    wide = sim.stack(sim.Single(rule=Adam()), sim.MixedPrecision("bf16", accumulate=True))
    assert most(wide, 1) == [theory.model_states(parameters, accumulate=True)] == [18 * parameters]
    assert theory.model_states(7.5e9) == 120e9


@pytest.mark.parametrize(
    "rule, numbers",
    [
        (SGD(0.1), 0), (Momentum(0.1), 1), (Momentum(0.1, beta=0.0), 0), (Adam(), 2), (LARS(1.0), 1), (LAMB(), 2),
        (Scaled(Clipped(Adam(), value=1.0)), 2), (Groups({0: Momentum(0.1)}, default=SGD(0.1)), 1),
    ],
    ids=str,
)  # fmt: skip
def test_a_rule_keeps_as_many_numbers_as_it_says(rule: sim.rules.Rule, numbers: int):
    """What torch.optim remembers after an update, without its counts of steps."""
    import torch

    assert rule.state == numbers
    leaf = torch.nn.Parameter(torch.ones(64))
    leaf.grad = torch.ones(64)
    optimizer = rule.optimizer([("0.weight", leaf)] if rule.per_tensor else [leaf])
    rule.step(optimizer)
    kept = sum(one.numel() for memory in optimizer.state.values() for one in memory.values() if torch.is_tensor(one))
    assert kept // 64 == numbers
    for width, model in ((4, MODEL), (8, replace(MODEL, parameter_bytes=8))):
        assert most(sim.Single(rule=rule), 1, model) == [(2 + numbers) * width * MODEL.parameters]


def test_what_the_precision_says_counts():
    precision = sim.Precision(parameters=1, gradients=2, master=4, state=2)
    assert most(sim.DataParallel(rule=Adam()), 2, precision=precision) == 2 * [(1 + 2 + 4 + 4) * MODEL.parameters]
    assert most(sim.DataParallel(), 2, rule=Adam()) == 2 * [16 * MODEL.parameters]


# ---------------------------------------------------------------- sharding: C2, C3


def test_the_closed_form_is_the_papers_C2():
    found = [theory.sharded_states(stage, 64, 7.5e9) / 1e9 for stage in (1, 2, 3)]
    assert found == pytest.approx([31.41, 16.64, 1.875], abs=0.005)


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_sharded_program_holds_what_zero_leaves_C2(stage: int, ranks: int):
    """And, while it works, the buckets in use; each kind at its peak."""
    rank = sim.memory(sim.stack(sim.Sharded(stage, rule=Adam()), MIXED), MODEL, ranks)[-1]
    form = theory.sharded_states(stage, ranks, MODEL.parameters, bucket=EACH)
    assert rank.peak.total == form
    # Once the gradients of the first block are complete, nothing is gathered ahead: stage 3 never needs all at once.
    late = 2 * EACH / ranks if stage == 3 and ranks > 1 else 0
    assert rank.most.total == form - late


@some
@given(stage=st.sampled_from([1, 2, 3]), ranks=st.sampled_from([2, 4, 8]), prefetch=st.integers(0, 3))
def test_what_is_gathered_ahead_counts_from_its_start(stage: int, ranks: int, prefetch: int):
    strategy = sim.stack(sim.Sharded(stage, prefetch=prefetch, rule=Adam()), MIXED)
    form = theory.sharded_states(stage, ranks, MODEL.parameters, bucket=EACH, gathered=prefetch + 1)
    assert sim.memory(strategy, MODEL, ranks)[0].peak.total == form


def test_smaller_buckets_come_closer_to_the_paper_C2():
    model = sim.Model.of_times(blocks=200, parameters=200 * 64, batch=4)
    found = most(sim.stack(sim.Sharded(3, rule=Adam()), MIXED), 4, model)[0]
    assert isclose(found, theory.sharded_states(3, 4, model.parameters), rel_tol=0.02)


@pytest.mark.parametrize("stage, elements", [(1, 2), (2, 2), (3, 3)])
def test_sharding_sends_two_or_three_numbers_per_parameter_C3(stage: int, elements: int):
    ranks = 8
    strategy = sim.stack(sim.Sharded(stage), MIXED)
    run = sim.simulate(strategy, MODEL, sim.Cluster.flat(ranks=ranks, bandwidth=1e9, latency=0.0), steps=1)
    expected = theory.sharded_bytes(stage, ranks, 2 * MODEL.parameters)
    assert run.bytes_sent == pytest.approx([expected] * ranks)
    assert expected * ranks / (ranks - 1) == 2 * elements * MODEL.parameters
    assert theory.sharded_bytes(stage, 10**9, 2 * 7.5e9) == pytest.approx(15e9 * elements)  # the paper's 30 and 45 GB


def test_sharding_never_needs_more_than_replicas():
    plain = most(sim.DataParallel(rule=Adam()), 4, ACTIVE)
    stages = [most(sim.Sharded(stage, rule=Adam()), 4, ACTIVE) for stage in (1, 2, 3)]
    assert plain > stages[0] > stages[1] > stages[2]


# ---------------------------------------------------------------- activations of pipelines: B3, B5, B7


def activations(schedule: str, stages: int, microbatches: int, **knobs) -> list[float]:
    """The peaks of the stages."""
    model = ACTIVE.with_batch(microbatches)  # a sample per microbatch
    return [one.peak.activations for one in sim.memory(sim.Pipeline(schedule, microbatches, **knobs), model, stages)]


@some
@given(
    schedule=st.sampled_from(["naive", "gpipe", "1f1b"]), stages=st.sampled_from([1, 2, 4, 8]), more=st.integers(0, 6)
)
def test_a_stage_holds_the_microbatches_in_flight_B3(schedule: str, stages: int, more: int):
    """And one output that it has not sent yet, but for the last stage."""
    microbatches, each = stages + more, 8 * BLOCKS / stages
    form = [theory.pipeline_activations(schedule, s, stages, microbatches, each) for s in range(stages)]
    assert activations(schedule, stages, microbatches) == [size + 8 * (s < stages - 1) for s, size in enumerate(form)]


def test_gpipe_needs_m_where_1f1b_needs_p_minus_s_B3():
    assert activations("gpipe", 4, 8) == [264, 264, 264, 256]
    assert activations("1f1b", 4, 8) == [136, 104, 72, 32]


def test_interleaving_costs_memory_B5():
    """5.5, 4.5, 3.5 and 2.5 microbatches, for v=2 chunks on 4 ranks; every chunk but the very last sends its output."""
    form = [theory.pipeline_activations("interleaved", s, 4, 8, 32.0) for s in range(4)]
    assert [size / 32 for size in form] == [5.5, 4.5, 3.5, 2.5]
    found = activations("interleaved", 4, 8)
    assert all(form[s] <= found[s] <= form[s] + 8 for s in range(4))
    assert all(a > b for a, b in zip(found, activations("1f1b", 4, 8)))


@pytest.mark.parametrize("schedule", ["zb-h1", "zb-h2"])
def test_what_a_weight_pass_needs_stays_until_it_has_run_B7(schedule: str):
    form = [theory.pipeline_activations(schedule, s, 4, 8, 32.0) for s in range(4)]
    assert activations(schedule, 4, 8) == [size + 8 * (s < 3) for s, size in enumerate(form)]


def test_pipedream_stashes_a_version_of_the_weights_per_minibatch_in_flight_B13():
    """Stage s keeps p-s of them; the last, which meets its own weights again at once, needs no copy."""
    stages = sim.memory(sim.PipeDream(), MODEL, ranks=4)
    mine = MODEL.parameters  # a quarter of them, 4 bytes each
    assert [one.peak.buffers / mine for one in stages] == [4, 3, 2, 0]
    assert all(one.peak.parameters == mine for one in stages)


# ---------------------------------------------------------------- activations of blocks


def test_accumulation_needs_the_activations_of_one_microbatch():
    whole, parts = (sim.memory(sim.Single(m), ACTIVE, 1)[0].peak.activations for m in (1, 4))
    assert whole == 4 * parts == 16 * 8 * BLOCKS


def test_a_block_may_keep_more_than_what_enters_it_C5():
    """A transformer layer of GPT-3 keeps sbh(34 + 5as/h) bytes: 2.869 GB (Korthikanti et al. 2022)."""
    sequence, hidden, heads = 2048, 12288, 96
    size = sequence * hidden * (34 + 5 * heads * sequence / hidden)
    assert round(size / 1e9, 3) == 2.869
    layer = sim.Block(input_bytes=2.0 * sequence * hidden, saved_bytes=size)
    model = sim.Model("layers", (layer,) * 96, batch=1, parameter_bytes=2)
    peak = sim.memory(sim.Single(), model, 1)[0].peak.activations
    assert peak == 96 * size and round(peak / 1e9, 1) == 275.4
    halves = sim.memory(sim.stack(sim.Single(), MIXED), replace(model, parameter_bytes=4), 1)[0].peak.activations
    assert halves == pytest.approx(48 * size + sequence * hidden, rel=1e-3)


def test_negative_sizes_are_refused():
    with pytest.raises(ValueError, match="saved_bytes"):
        sim.Block(saved_bytes=-1.0)


def test_over_time_it_rises_forward_and_falls_backward():
    moments = sim.memory(sim.Single(), ACTIVE, 1)[0].over_time
    names = [moment.instruction.split()[0] for moment in moments]
    held = [moment.held.activations for moment in moments]
    first, last = names.index("Loss"), names.index("Update")
    assert held[:first] == sorted(held[:first]) and held[first:last] == sorted(held[first:last], reverse=True)
    assert held[last] == 0 and moments[0].held.gradients == 0 == moments[0].held.optimizer
    assert [moment.step for moment in moments] == sorted(moment.step for moment in moments)


def test_tensor_parallel_ranks_hold_their_units():
    model = ACTIVE.in_parts(units=8)
    alone, shared = (sim.memory(sim.TensorParallel(rule=Adam()), model, n)[0].peak for n in (1, 4))
    assert shared.parameters == alone.parameters / 4 and shared.optimizer == alone.optimizer / 4


def test_servers_hold_what_they_serve_and_workers_remember_nothing():
    server, _, worker, _ = sim.memory(sim.ParameterServer(servers=2, rule=Adam()), MODEL, 4)
    assert server.peak.optimizer == 8 * MODEL.parameters / 2 and server.peak.parameters == 4 * MODEL.parameters / 2
    assert worker.peak.optimizer == 0 and worker.peak.parameters == 4 * MODEL.parameters


def test_named_buffers_count_until_they_are_freed():
    """DiLoCo's: the parameters of the last round, the outer momentum, and the move of this round."""
    assert sim.memory(sim.DiLoCo(period=2), MODEL, 2)[0].peak.buffers == 3 * 4 * MODEL.parameters


@pytest.mark.parametrize("strategy", [sim.ParameterServer(mode="async"), sim.ADPSGD()], ids=str)
def test_programs_that_depend_on_what_arrives_are_refused(strategy):
    with pytest.raises(ValueError, match=r"memory is read from the text of a program.*take a synchronous strategy"):
        sim.memory(strategy, MODEL, 4)


def test_what_is_no_workload_is_refused():
    with pytest.raises(ValueError, match="workload"):
        sim.memory(sim.Single(), "model", 1)


# ---------------------------------------------------------------- of a Run


def test_a_run_knows_its_peak_memory_and_so_does_its_file(tmp_path):
    strategy = sim.Sharded(2, rule=Adam())
    run = sim.simulate(strategy, ACTIVE, sim.cluster("ideal", ranks=4), steps=2)
    assert run.peak_memory == most(strategy, 4, ACTIVE)
    run.save(tmp_path / "run")
    again = sim.Run.load(tmp_path / "run")
    assert again == run and again.peak_memory == run.peak_memory


def test_a_run_of_a_program_without_text_says_so(tmp_path):
    run = sim.simulate(sim.ParameterServer(mode="async"), MODEL, sim.cluster("ideal", ranks=3), steps=2)
    with pytest.raises(ValueError, match="memory is read from the text"):
        run.peak_memory  # noqa: B018
    run.save(tmp_path / "run")
    with pytest.raises(ValueError, match="does not know its own"):
        sim.Run.load(tmp_path / "run").peak_memory  # noqa: B018


def test_a_problem_is_counted_with_its_own_rule():
    problem = sim.problem("digits-mlp", hidden=16, batch=24)
    run = sim.simulate(sim.DataParallel(), problem, sim.cluster("ideal", ranks=2), steps=1)
    numbers = 2 + problem.rule.state
    assert run.peak_memory[0] >= numbers * 4 * problem.model().parameters


# ---------------------------------------------------------------- intervals


@some
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(0, 30)), max_size=12))
def test_intervals_are_sets(steps: list[tuple[bool, int, int]]):
    ours, truth = Intervals(), set[int]()
    for adds, first, last in steps:
        (ours.add if adds else ours.remove)([(first, last)])
        truth = truth | {*range(first, last)} if adds else truth - {*range(first, last)}
    assert {place for a, b in ours.found for place in range(a, b)} == truth and ours.size == len(truth)
    assert ours.found == sorted(ours.found) and all(a < b for a, b in ours.found)
