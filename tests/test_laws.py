"""The laws that every strategy obeys, on both clocks, at every number of ranks in the table."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from math import fsum, isclose

import pytest
from cases import ALL, REPLAYED, SYNCHRONOUS, Case, problem
from common.runs import apart
from hypothesis import given, settings
from hypothesis import strategies as st

import lab
import simulator as sim
from simulator.metrics import COMPUTATION
from simulator.spans import kind

STEPS, SEED = 3, 1


def cells(table: Iterable[Case], law: str = "") -> pytest.MarkDecorator:
    """Every row at every number of ranks; few ranks first, so that each gang of real ranks is started once."""
    found = [(case, ranks) for case in table if law not in case.outside for ranks in case.ranks]
    found.sort(key=lambda cell: cell[1])
    return pytest.mark.parametrize("case, ranks", found, ids=[f"{case}-on-{ranks}" for case, ranks in found])


def rows(table: Iterable[Case]) -> pytest.MarkDecorator:
    """Every row."""
    return pytest.mark.parametrize("case", table, ids=str)


@cache
def truth(name: str, rule: sim.rules.Rule | None, seed: int = SEED) -> sim.Run:
    """What a single process learns."""
    return sim.simulate(sim.Single(rule=rule), problem(name), sim.cluster("ideal", ranks=1), steps=STEPS, seed=seed)


@cache
def wall(case: Case, ranks: int) -> sim.Run:
    """What real processes did."""
    run = lab.execute(case.strategy, problem(case.problem), ranks=ranks, steps=STEPS, seed=SEED, timeout=120)
    assert run.clock == "wall"
    return run


@cache
def virtual(case: Case, ranks: int) -> sim.Run:
    """What the virtual clock says; where it matters who comes first, as it was in the real run."""
    cluster = sim.Cluster.flat(ranks=ranks, bandwidth=1e9, latency=1e-5)
    replay = wall(case, ranks) if case in REPLAYED else None
    run = sim.simulate(case.strategy, problem(case.problem), cluster, steps=STEPS, seed=SEED, replay=replay)
    assert run.clock == "virtual"
    return run


def timed(case: Case, ranks: int, **knobs: object) -> sim.Run:
    """A run without tensors, on a free network unless told otherwise: 4 blocks per rank of 1 s and 2 s."""
    model = case.shared(sim.Model.of_times(blocks=4 * ranks, parameters=4800 * ranks, activation_bytes=64, batch=60))
    return sim.simulate(case.strategy, model, **{"cluster": sim.cluster("ideal", ranks=ranks), "steps": 2, **knobs})


# ---------------------------------------------------------------- 1: equal to the single process


@rows([row for row in SYNCHRONOUS if row.ranks == (1,)])
def test_the_truth_learns_and_depends_on_its_seed(case: Case):
    run = truth(case.problem, case.rule)
    assert apart(run.parameters, problem(case.problem).parameters(SEED)) > 1e-4
    assert apart(run.parameters, truth(case.problem, case.rule, seed=SEED + 1).parameters) > 1e-6
    assert len(run.losses) == STEPS and len(set(run.losses)) == STEPS


@cells(SYNCHRONOUS, law="single")
def test_real_ranks_equal_the_single_process(case: Case, ranks: int):
    run, expected = wall(case, ranks), truth(case.problem, case.rule)
    assert apart(run.parameters, problem(case.problem).parameters(SEED)) > 1e-4
    assert apart(run.parameters, expected.parameters) <= 1e-9
    assert run.losses == pytest.approx(expected.losses, abs=1e-9)


@cells(SYNCHRONOUS, law="single")
def test_virtual_ranks_equal_the_single_process(case: Case, ranks: int):
    run, expected = virtual(case, ranks), truth(case.problem, case.rule)
    assert apart(run.parameters, problem(case.problem).parameters(SEED)) > 1e-4
    assert apart(run.parameters, expected.parameters) <= 1e-9
    assert run.losses == pytest.approx(expected.losses, abs=1e-9)


# ---------------------------------------------------------------- 2: virtual equals real


@cells(SYNCHRONOUS)
def test_both_clocks_learn_the_same(case: Case, ranks: int):
    ours, theirs = virtual(case, ranks), wall(case, ranks)
    assert apart(ours.parameters, theirs.parameters) <= 1e-9
    assert ours.losses == pytest.approx(theirs.losses, abs=1e-9)
    assert [delays(ours, rank) for rank in range(ranks)] == [delays(theirs, rank) for rank in range(ranks)]


@cells(REPLAYED)
def test_a_replayed_run_equals_the_real_one(case: Case, ranks: int):
    ours, theirs = virtual(case, ranks), wall(case, ranks)
    assert apart(theirs.parameters, problem(case.problem).parameters(SEED)) > 1e-6
    assert apart(ours.parameters, theirs.parameters) <= 1e-9
    assert ours.outcomes == theirs.outcomes
    assert histories(ours) == histories(theirs)
    assert losses(ours) == pytest.approx(losses(theirs), abs=1e-9)


def test_a_real_worker_that_is_late_gives_up():
    late = [row for row in REPLAYED if row.problem == "late" and row.id.startswith("backups")]
    assert len(late) == 2 and all(max(wall(row, 4).outcomes[3]) >= 0 for row in late)


def delays(run: sim.Run, rank: int) -> list[float]:
    """The staleness of each update of a rank, in its own order: which rank is first is a matter of time."""
    return [sample.value for sample in run.samples if (sample.rank, sample.name) == (rank, "staleness")]


def losses(run: sim.Run) -> list[float]:
    """Losses in an order that does not depend on time: worker by worker."""
    if not run.asynchronous:
        return run.losses  # type: ignore[return-value]
    return [row.loss for row in sorted(run.losses, key=lambda row: (row.worker, row.time))]


def histories(run: sim.Run) -> dict[int, list[tuple[str, float]]]:
    """The numbers that each server noted, in its own order."""
    servers = set(range(run.ranks)) - set(run.workers)
    return {rank: [(s.name, s.value) for s in run.samples if s.rank == rank] for rank in servers}


# ---------------------------------------------------------------- 3: bytes, and the order of instructions


@cells(ALL)
def test_both_clocks_send_the_same_bytes(case: Case, ranks: int):
    assert list(virtual(case, ranks).bytes_sent) == pytest.approx(list(wall(case, ranks).bytes_sent), rel=1e-12)


@cells(ALL, law="bytes")
def test_what_is_sent_is_what_theory_says(case: Case, ranks: int):
    expected = [STEPS * size for size in case.bytes(problem(case.problem).model(), ranks)]
    assert list(wall(case, ranks).bytes_sent) == pytest.approx(expected, rel=1e-12)


@cells(SYNCHRONOUS, law="unlearned")
def test_as_many_bytes_are_counted_without_tensors(case: Case, ranks: int):
    cluster = sim.Cluster.flat(ranks=ranks, bandwidth=1e9, latency=1e-5)
    run = sim.simulate(case.strategy, problem(case.problem), cluster, steps=STEPS, seed=SEED, learn=False)
    assert list(run.bytes_sent) == pytest.approx(list(virtual(case, ranks).bytes_sent), rel=1e-12)


@cells(ALL, law="order")
def test_both_clocks_run_the_same_instructions_in_the_same_order(case: Case, ranks: int):
    assert virtual(case, ranks).instructions == wall(case, ranks).instructions


# ---------------------------------------------------------------- 4: valid, free of deadlock


@cells(ALL)
def test_programs_are_valid(case: Case, ranks: int):
    sim.validate(case.strategy, ranks)
    sim.validate(case.strategy, ranks, problem(case.problem))


@cells(ALL)
def test_what_is_listed_is_what_runs(case: Case, ranks: int):
    listed = sim.listing(case.strategy, ranks, problem(case.problem), steps=STEPS)
    assert len(listed) == ranks and all(listed[rank] for rank in range(ranks))
    if sim.stack(case.strategy).order.static:
        elsewhere = ("Start", "Wait", "Record", "Send")  # on other streams, or nowhere
        mine = [[text for text in listed[rank] if not text.startswith(elsewhere)] for rank in range(ranks)]
        ours = virtual(case, ranks).instructions
        assert mine == [ours[rank, "compute"] for rank in range(ranks)]


@pytest.mark.parametrize("ranks", [5, 8, 12])
@rows([row for row in ALL if row.grows])
def test_programs_are_valid_on_many_ranks(case: Case, ranks: int):
    sim.validate(case.strategy, ranks)


# ---------------------------------------------------------------- 5: the ideal limit, and lower bounds


@cells(ALL, law="seconds")
def test_without_communication_time_is_the_closed_form(case: Case, ranks: int):
    assert isclose(timed(case, ranks).makespan, 2 * case.seconds(ranks, 4 * ranks), rel_tol=1e-9)


@settings(max_examples=5, deadline=None)
@given(bandwidth=st.floats(10.0, 1e5), latency=st.floats(0.0, 1.0))
@cells(ALL, law="timed")
def test_no_lower_bound_is_beaten(case: Case, ranks: int, bandwidth: float, latency: float):
    cluster = sim.Cluster.flat(ranks=ranks, bandwidth=bandwidth, latency=latency)
    run = timed(case, ranks, cluster=cluster)
    longest = run.makespan * (1 + 1e-9)
    assert max(run.bytes_sent) / bandwidth <= longest  # nobody sends faster than its link
    assert fsum(run.bytes_sent) / ranks / bandwidth <= longest  # nor do all together receive faster
    if not sim.stack(case.strategy).order.asynchronous and not {"bytes", "seconds"} & case.outside.keys():
        assert 2 * case.seconds(ranks, 4 * ranks) <= longest


# ---------------------------------------------------------------- 7: time adds up


@cells(ALL, law="streams")
def test_no_span_overlaps_another_on_one_stream(case: Case, ranks: int):
    slow = sim.Cluster.flat(ranks=ranks, bandwidth=2e3, latency=0.1)
    runs = [virtual(case, ranks), wall(case, ranks), timed(case, ranks, cluster=slow, noise=sim.noise.gamma(2.0))]
    for run in runs:
        for spans in lanes(run).values():
            assert all(span.start <= span.end for span in spans)
            assert all(before.end <= after.start + 1e-12 for before, after in pairwise(spans))


def lanes(run: sim.Run) -> dict[tuple[int, str], list[sim.Span]]:
    """The spans of each stream of each rank, in order of time."""
    found: dict[tuple[int, str], list[sim.Span]] = {}
    for span in sorted(run.spans, key=lambda span: (span.start, span.end)):
        found.setdefault((span.rank, span.stream), []).append(span)
    return found


@cells(ALL, law="work")
def test_work_is_conserved(case: Case, ranks: int):
    """However the blocks and the batch are split, all ranks together do what one would do."""
    work = [sim.Block(120, sim.Flops(1e9 * i), sim.Flops(3e9 * i), 8.0) for i in range(1, 4 * ranks + 1)]
    model = case.shared(sim.Model("uneven", tuple(work), batch=60))
    run = sim.simulate(case.strategy, model, sim.Cluster.flat(ranks=ranks, bandwidth=1e4, latency=0.01), steps=2)
    alone = 2 * 60 * sum(4e9 * i for i in range(1, 4 * ranks + 1)) / sim.Device().flops
    assert fsum(run.busy) == pytest.approx(alone, rel=1e-9)
    spans = [span for span in run.spans if kind(span.instruction) in COMPUTATION]
    assert fsum(span.end - span.start for span in spans) == pytest.approx(alone, rel=1e-9)
