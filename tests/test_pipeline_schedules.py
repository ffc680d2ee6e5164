"""Schedules of pipelines against the closed forms (B4–B10, B13), by a dependency simulator and by the virtual clock."""

from __future__ import annotations

from math import isclose

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from simulator import theory
from simulator.strategies.schedules import SCHEDULES, Task

some, few = settings(max_examples=40, deadline=None), settings(max_examples=20, deadline=None)
seconds = st.floats(0.05, 4.0)
names = st.sampled_from(list(SCHEDULES))


# ---------------------------------------------------------------- two judges


def run_of(
    schedule: str, ranks: int, microbatches: int, forward: float = 1.0, inputs: float = 1.0, weights: float = 1.0,
    steps: int = 1, chunks: int | None = None,
) -> sim.Run:  # fmt: skip
    """The virtual clock, on a free network: a block per chunk, times per rank and microbatch."""
    strategy = sim.Pipeline(schedule, microbatches, chunks=chunks)
    each = strategy.chunks_each
    model = sim.Model.of_times(
        blocks=ranks * each, forward=forward / each, backward=(inputs + weights) / each, weight=weights / each,
        activation_bytes=8.0, batch=microbatches,
    )  # fmt: skip
    return sim.simulate(strategy, model, sim.cluster("ideal", ranks=ranks), steps=steps)


def starts_and_ends(tasks: list[tuple[Task, ...]], stage: object, last: int, times: dict[str, float]):
    """For each rank its (start, end, task): a task begins when the rank is free and what it needs is done.

    ``stage(rank, chunk)`` numbers the chunks of the model from 0 to ``last``. Knows nothing of programs or machines.
    """
    done: dict[tuple[str, int, int], float] = {}
    found: list[list[tuple[float, float, Task]]] = [[] for _ in tasks]
    left = [list(order) for order in tasks]
    while any(left):
        before = sum(map(len, left))
        for rank, order in enumerate(left):
            while order and (ready := needs(order[0], stage(rank, order[0].chunk), last, done)) is not None:
                task = order.pop(0)
                start = max(ready, found[rank][-1][1] if found[rank] else 0.0)
                found[rank].append((start, start + times[task.what], task))
                kind = "B" if task.what == "I" else task.what
                done[kind, task.microbatch, stage(rank, task.chunk)] = found[rank][-1][1]
        assert sum(map(len, left)) < before, f"deadlock: {[order[:1] for order in left]}"
    return found


def needs(task: Task, stage: int, last: int, done: dict[tuple[str, int, int], float]) -> float | None:
    """When what a task needs is done; None where it is not yet."""
    microbatch, before = task.microbatch, []
    if task.what == "F" and stage > 0:
        before = [("F", microbatch, stage - 1)]
    if task.what in "BI":
        before = [("F", microbatch, stage), *([("B", microbatch, stage + 1)] if stage < last else [])]
    if task.what == "W":
        before = [("B", microbatch, stage)]
    return max((done[key] for key in before), default=0.0) if all(key in done for key in before) else None


def judged(schedule: str, ranks: int, microbatches: int, forward=1.0, inputs=1.0, weights=1.0, chunks=None):
    """The same by the dependency simulator."""
    strategy = sim.Pipeline(schedule, microbatches, chunks=chunks)
    each = strategy.chunks_each
    times = {"F": forward / each, "B": (inputs + weights) / each, "I": inputs / each, "W": weights / each}

    def stage(rank: int, chunk: int) -> int:
        return 2 * ranks - 1 - rank if schedule == "zbv" and chunk else chunk * ranks + rank

    orders = [strategy.tasks(at, ranks) for at in range(ranks)]
    return starts_and_ends(orders, stage, ranks * each - 1, times)


def idle(found) -> list[float]:
    """What each rank idles between its first start and its last end."""
    return [rows[-1][1] - rows[0][0] - sum(end - start for start, end, _ in rows) for rows in found]


def idle_of(run: sim.Run) -> list[float]:
    """The same, from spans of passes: a rank that waits for a message idles."""
    passes = [span for span in run.spans if span.instruction.startswith(("Forward", "Backward"))]
    found = [[span for span in passes if span.rank == rank] for rank in range(run.ranks)]
    return [
        max(s.end for s in spans) - min(s.start for s in spans) - sum(s.end - s.start for s in spans) for spans in found
    ]


def fits(schedule: str, ranks: int, microbatches: int) -> int:
    """As many microbatches as the schedule can have."""
    return microbatches * ranks if schedule == "interleaved" else microbatches


# ---------------------------------------------------------------- what every schedule obeys


@some
@given(schedule=names, ranks=st.integers(1, 7), microbatches=st.integers(1, 12), more=st.integers(0, 2))
def test_everything_is_done_once_and_in_order(schedule: str, ranks: int, microbatches: int, more: int):
    m = fits(schedule, ranks, microbatches)
    strategy = sim.Pipeline(schedule, m, chunks=2 + more if schedule == "interleaved" else None)
    for at in range(ranks):
        order = strategy.tasks(at, ranks)
        for microbatch in range(m):
            for chunk in range(strategy.chunks_each):
                kinds = [task.what for task in order if task[1:] == (microbatch, chunk)]
                assert kinds in (["F", "B"], ["F", "I", "W"])
        assert len(order) == (3 if schedule.startswith("zb") else 2) * m * strategy.chunks_each


@some
@given(
    schedule=names, ranks=st.integers(1, 5), microbatches=st.integers(1, 8),
    forward=seconds, inputs=seconds, weights=seconds,
)  # fmt: skip
def test_the_virtual_clock_agrees_with_the_dependencies(
    schedule: str, ranks: int, microbatches: int, forward: float, inputs: float, weights: float
):
    m = fits(schedule, ranks, microbatches)
    run = run_of(schedule, ranks, m, forward, inputs, weights)
    found = judged(schedule, ranks, m, forward, inputs, weights)
    assert isclose(run.makespan, max(rows[-1][1] for rows in found), rel_tol=1e-9)
    assert idle_of(run) == pytest.approx(idle(found), abs=1e-9)
    assert run.busy == pytest.approx([m * (forward + inputs + weights)] * ranks)


@some
@given(ranks=st.integers(1, 6), rounds=st.integers(1, 4), schedule=names)
def test_peaks_are_those_of_theory(ranks: int, rounds: int, schedule: str):
    """B5, B7, B8, B10: exactly, with at least 2p-1 microbatches."""
    m = 2 * ranks * rounds
    expected = [theory.in_flight(schedule, stage, ranks, m) for stage in range(ranks)]
    assert run_of(schedule, ranks, m).in_flight == pytest.approx(expected, abs=1e-12)


# ---------------------------------------------------------------- B4, B5, B6: interleaved


@pytest.mark.parametrize(
    "chunks, makespan, peaks", [(2, 28.5, [5.5, 4.5, 3.5, 2.5]), (4, 26.25, [4.75, 4.25, 3.75, 3.25])]
)
def test_b4_and_b5_in_numbers(chunks: int, makespan: float, peaks: list[float]):
    run = run_of("interleaved", 4, 8, chunks=chunks)
    assert run.makespan == makespan and run.in_flight == peaks
    assert theory.interleaved_pipeline(4, 8, chunks, 1.0, 2.0) == makespan


@some
@given(
    ranks=st.integers(1, 6), rounds=st.integers(1, 4), chunks=st.integers(2, 4), forward=seconds, backward=seconds
)  # fmt: skip
def test_b4_interleaving_divides_the_bubble(ranks: int, rounds: int, chunks: int, forward: float, backward: float):
    m = ranks * rounds
    run = run_of("interleaved", ranks, m, forward, backward / 2, backward / 2, chunks=chunks)
    expected = theory.interleaved_pipeline(ranks, m, chunks, forward, backward)
    assert isclose(run.makespan, expected, rel_tol=1e-9)
    bubble = run.makespan - m * (forward + backward)
    assert bubble == pytest.approx((ranks - 1) * (forward + backward) / chunks, abs=1e-9)


def test_b5_interleaving_holds_more_than_1f1b():
    assert run_of("interleaved", 4, 8).in_flight[0] == 4 + 3 / 2 > run_of("1f1b", 4, 8).in_flight[0] == 4


@pytest.mark.parametrize("chunks", [2, 3])
def test_b6_interleaving_sends_v_times_as_much(chunks: int):
    plain, chunked = run_of("1f1b", 4, 8).bytes_sent, run_of("interleaved", 4, 8, chunks=chunks).bytes_sent
    assert list(chunked[1:3]) == [chunks * size for size in plain[1:3]]
    assert list(chunked[::3]) == [(2 * chunks - 1) * size for size in plain[::3]]  # the ends: no wrap before and after


# ---------------------------------------------------------------- B7, B8, B9: zero bubble


def test_b7_b8_and_b9_in_numbers():
    half, none = run_of("zb-h1", 4, 8), run_of("zb-h2", 4, 8)
    assert max(idle_of(half)) == 3 and half.makespan == 27 and half.in_flight == [4, 4, 4, 4]
    assert max(idle_of(run_of("1f1b", 4, 8))) == 9
    assert max(idle_of(run_of("zb-h1", 8, 24))) == 7
    assert idle_of(none) == [0, 0, 0, 0] and none.in_flight == [7, 7, 7, 7]
    assert none.makespan == 24 + 3  # B9: each rank is busy for 24 s, but they start one after another


@some
@given(
    ranks=st.integers(1, 6), more=st.integers(0, 8), weights=seconds, forward=st.floats(0.0, 3.0),
    inputs=st.floats(0.0, 3.0), schedule=st.sampled_from(["zb-h1", "zb-h2"]),
)  # fmt: skip
def test_b7_and_b8_with_any_times(
    ranks: int, more: int, weights: float, forward: float, inputs: float, schedule: str
):
    """Where W is the shortest: (p-1)(F+b-W) under H1, (p-1)(F+b-2W) under H2."""
    m, forward, inputs = 2 * ranks - 1 + more, weights + forward, weights + inputs
    expected = theory.zero_bubble_idle(schedule, ranks, forward, inputs, weights)
    assert max(idle_of(run_of(schedule, ranks, m, forward, inputs, weights))) == pytest.approx(expected, abs=1e-9)


def test_b9_steps_follow_without_a_gap_but_not_after_a_global_reduction():
    """Two steps of H2 share one warm-up; a reduction over all ranks before the update costs it again."""
    assert run_of("zb-h2", 4, 8, steps=2).makespan == 2 * 24 + 3
    model = sim.Model.of_times(blocks=4, weight=1.0)
    strategy = sim.stack(sim.Pipeline("zb-h2", 8), Together())
    assert sim.simulate(strategy, model, sim.cluster("ideal", ranks=4), steps=2).makespan == 2 * (24 + 3)


class Together(sim.Layer):
    """All ranks wait for each other before an update, as a global norm of the gradients makes them."""

    def rules(self, me: sim.Rank) -> sim.Rules:
        """A number is added over all ranks."""

        def wait(update: sim.Update) -> sim.Program:
            yield sim.Barrier(over="world")
            yield update

        return {sim.Update: wait}


# ---------------------------------------------------------------- B10: ZB-V


@few
@given(ranks=st.integers(1, 6), more=st.integers(0, 6))
def test_b10_zbv_has_no_bubble_the_memory_of_1f1b_and_sends_twice_as_much(ranks: int, more: int):
    m = 2 * ranks - 1 + more
    run, plain = run_of("zbv", ranks, m), run_of("1f1b", ranks, m)
    assert idle_of(run) == pytest.approx([0] * ranks, abs=1e-9)
    assert run.in_flight == [ranks] * ranks and plain.in_flight[0] == ranks
    assert list(run.bytes_sent) == [2 * size for size in plain.bytes_sent]


@few
@given(ranks=st.integers(1, 6), microbatches=st.integers(1, 12))
def test_zbv_with_few_microbatches_still_holds_no_more_than_p(ranks: int, microbatches: int):
    assert max(run_of("zbv", ranks, microbatches).in_flight) <= ranks


def test_the_turn_of_zbv_stays_on_one_rank():
    run = run_of("zbv", 2, 3)
    assert not any("Act(2," in span.instruction or "ActGrad(2," in span.instruction for span in run.spans)


# ---------------------------------------------------------------- one's own order


@some
@given(ranks=st.integers(1, 4), microbatches=st.integers(1, 6), schedule=names)
def test_a_schedule_handed_in_as_lists_is_the_same(ranks: int, microbatches: int, schedule: str):
    m = fits(schedule, ranks, microbatches)
    named = sim.Pipeline(schedule, m)
    lists = [[list(task) for task in named.tasks(at, ranks)] for at in range(ranks)]
    own = sim.Pipeline(lists, m, placement="v" if schedule == "zbv" else None)
    assert own.chunks_each == named.chunks_each and own == sim.Pipeline(lists, m, placement=own.placement)
    assert hash(own) == hash(sim.Pipeline(own.schedule, m, placement=own.placement))
    assert sim.listing(own, ranks) == sim.listing(named, ranks)


def test_an_order_that_waits_for_itself_is_shown_with_the_place_marked():
    """Each rank's list is right, but rank 0 waits for microbatch 0, and rank 1 for microbatch 1."""
    mine, theirs = [("F", 0), ("B", 0), ("F", 1), ("B", 1)], [("F", 1), ("B", 1), ("F", 0), ("B", 0)]
    strategy = sim.Pipeline([mine, theirs], microbatches=2)
    with pytest.raises(sim.ProgramError, match="deadlock") as error:
        sim.validate(strategy, ranks=2)
    assert ">> Recv ActGrad(1, mb 0) from pipeline 1" in str(error.value)
    assert ">> Recv Act(1, mb 1) from pipeline 0" in str(error.value)
    with pytest.raises(sim.ProgramError, match="deadlock"):
        sim.simulate(strategy, sim.Model.of_times(blocks=2), sim.cluster("ideal", ranks=2))


def test_ones_own_order_knows_its_number_of_ranks():
    strategy = sim.stack(sim.Pipeline([[("F", 0), ("B", 0)]] * 2, microbatches=1), sim.DataParallel())
    assert strategy.grid(6) == {"pipeline": 2, "data": 3}


# ---------------------------------------------------------------- what cannot be

ONE = [[("F", 0), ("B", 0)]]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: sim.Pipeline("interleaved", chunks=1), "'interleaved' has 2 chunks per rank or more; got chunks=1"),
        (lambda: sim.Pipeline("1f1b", chunks=2), "'1f1b' has 1 chunk per rank; got chunks=2"),
        (lambda: sim.Pipeline("zbv", chunks=3), "'zbv' has 2 chunks per rank; got chunks=3"),
        (lambda: sim.Pipeline(chunks=0), "at least 1; got chunks=0"),
        (lambda: sim.Pipeline("zbv", placement="loop"), "chooses itself; got placement='loop'"),
        (lambda: sim.Pipeline(ONE, 1, placement="zigzag"), "one of 'loop', 'v'.*got placement='zigzag'"),
        (lambda: run_of("interleaved", 3, 4), "microbatches=4 on 3 ranks: use a multiple of 3"),
        (
            lambda: sim.validate(sim.Pipeline("interleaved", 4), 2, sim.Model.of_times(blocks=3)),
            "got 3 block.* for 4 stages: use fewer ranks or chunks",
        ),
        (lambda: sim.Pipeline([], 1), "a list of tasks for each rank.*got schedule="),
        (lambda: sim.Pipeline(5, 1), "a list of tasks for each rank.*got schedule=5"),
        (lambda: sim.Pipeline([[]], 1), "a list of tasks for each rank.*got tasks="),
        (lambda: sim.Pipeline([["F0"]], 1), "a list of tasks for each rank.*got task='F0'"),
        (lambda: sim.Pipeline([[("X", 0)]], 1), r"'F', 'B', 'I', 'W'; got \('X', 0\) on rank 0"),
        (lambda: sim.Pipeline([[("F", -1)]], 1), "rank 0: microbatch is a whole number"),
        (lambda: sim.Pipeline([[("F", 0, 0.5)]], 1), "rank 0: chunk is a whole number"),
        (lambda: sim.Pipeline([[("F", 7), ("B", 7)]], 2), "from 0 to 1; got number 7 on rank 0: say microbatches=8"),
        (lambda: sim.Pipeline(ONE, 2), "microbatch 1 goes through chunk 0 of rank 0 as nothing"),
        (lambda: sim.Pipeline([[("B", 0), ("F", 0)]], 1), "in this order; microbatch 0 .* as B, F"),
        (lambda: sim.Pipeline([[("F", 0), ("I", 0)]], 1), "microbatch 0 .* as F, I"),
        (lambda: sim.Pipeline([[("F", 0), ("B", 0), ("W", 0)]], 1), "microbatch 0 .* as F, B, W"),
        (lambda: sim.Pipeline([[("F", 0, 1), ("B", 0, 1)]], 1), "chunk 0 of rank 0 as nothing"),
        (lambda: sim.validate(sim.Pipeline(ONE, 1, stages=2), ranks=2), "got 1 for 2 ranks"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()
