"""Metrics of hand-made runs, small enough to know every number."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import metrics
from simulator.run import LossRow, Run, Sample, Span, Spans


def a_run(spans: Iterable[tuple], ranks: int = 1, **more) -> Run:
    """A run of these spans: (rank, stream, instruction, step, start, end[, bytes])."""
    recorded = Spans()
    for span in spans:
        recorded.add(*span)
    run = Run(
        clock="virtual",
        strategy="S()",
        workload="w",
        cluster="c",
        ranks=ranks,
        workers=tuple(range(ranks)),
        steps=1,
        seed=0,
        batch=8,
        spans=recorded,
    )
    return replace(run, **more)


TWO_STEPS = [
    (0, "compute", "Load mb0", 0, 1.0, 1.5),
    (0, "compute", "Forward 0 mb0", 0, 1.5, 2.5),
    (0, "compute", "Backward 0 mb0", 0, 2.5, 4.5),
    (0, "data", "AllReduce Grads(0) over data", 0, 4.5, 6.0, 100.0),
    (0, "compute", "Forward 0 mb0", 1, 6.0, 7.0),
    (0, "compute", "Backward 0 mb0", 1, 7.0, 9.0),
    (1, "compute", "Forward 0 mb0", 0, 1.0, 3.0),
    (1, "data", "AllReduce Grads(0) over data", 0, 4.5, 6.0, 100.0),
    (1, "compute", "Forward 0 mb0", 1, 6.0, 8.0),
]


def pipeline(stages: int, microbatches: int, order: str) -> Run:
    """One step of GPipe or 1F1B with a second per forward and two per backward, and a free network."""
    sequence = {
        stage: _order(stages - stage if order == "1f1b" else microbatches, microbatches) for stage in range(stages)
    }
    spans, done, free = [], {}, [0.0] * stages
    while any(sequence.values()):
        for stage, todo in sequence.items():
            while todo and ((what := todo[0])[0], stage + (1 if what[0] == "Backward" else -1), what[1]) in (
                done.keys() | {("Forward", -1, what[1]), ("Backward", stages, what[1])}
            ):
                name, microbatch = todo.pop(0)
                ready = done.get((name, stage + (1 if name == "Backward" else -1), microbatch), 0.0)
                start = max(free[stage], ready)
                free[stage] = done[name, stage, microbatch] = start + (2.0 if name == "Backward" else 1.0)
                spans.append((stage, "compute", f"{name} {stage} mb{microbatch}", 0, start, free[stage]))
    return a_run(spans, ranks=stages)


def _order(warm_up: int, microbatches: int) -> list[tuple[str, int]]:
    warm_up = min(warm_up, microbatches)
    order = [("Forward", i) for i in range(warm_up)]
    for i in range(microbatches - warm_up):
        order += [("Backward", i), ("Forward", warm_up + i)]
    return order + [("Backward", i) for i in range(microbatches - warm_up, microbatches)]


def test_times_count_from_the_first_start():
    run = a_run(TWO_STEPS, ranks=2, steps=2)
    assert run.makespan == 8.0
    assert run.step_times == [5.0, 3.0]
    assert metrics.step_time(run) == 4.0
    assert run.throughput == 8 * 2 / 8.0


def test_a_step_ends_when_all_before_it_has_ended():
    late = [(0, "compute", "Forward 0 mb0", 0, 0.0, 1.0), (0, "to 1", "Send a[0] to world 1", 0, 1.0, 9.0)]
    run = a_run([*late, (0, "compute", "Forward 0 mb0", 1, 1.0, 2.0)], steps=2)
    assert run.step_times == [9.0, 0.0]


def test_servers_and_spans_outside_the_steps_do_not_end_a_step():
    spans = [(1, "compute", "Forward 0 mb0", 0, 0.0, 1.0), (0, "compute", "Update Params(0)", 0, 1.0, 5.0)]
    run = a_run([*spans, (1, "compute", "Barrier Nothing over world", 1, 5.0, 6.0)], ranks=2, workers=(1,))
    assert run.step_times == [1.0]
    assert run.makespan == 6.0


def test_busy_idle_and_exposed():
    run = a_run(TWO_STEPS, ranks=2, steps=2)
    assert run.busy == [6.0, 4.0]  # loading keeps no device busy
    assert run.bubble == pytest.approx(1 - (6.0 + 4.0) / 16)
    assert run.exposed_communication == [6.0 - 4.5] * 2
    assert run.waiting == [1.5 - 1.0, (4.5 - 3.0) + (9.0 - 8.0)]


def test_computing_on_two_streams_at_once_counts_once():
    spans = [
        (0, "compute", "Backward 0 mb0", 0, 0.0, 4.0),
        (0, "data", "Reduce a[0] += 1 b[0]", 0, 1.0, 2.0),
        (0, "data", "Reduce a[0] += 1 b[0]", 0, 3.0, 5.0),
        (0, "compute", "Update Params(0)", 0, 6.0, 7.0),
        (0, "compute", "Wait", 0, 7.0, 8.0),
    ]
    assert a_run(spans).busy == [6.0]


@pytest.mark.parametrize("order", ["gpipe", "1f1b"])
@given(stages=st.integers(1, 5), microbatches=st.integers(1, 9))
def test_pipelines_have_both_bubbles_and_the_known_peak(order: str, stages: int, microbatches: int):
    run, p, m = pipeline(stages, microbatches, order), stages, microbatches
    assert run.makespan == 3 * (m + p - 1)
    assert run.bubble == pytest.approx((p - 1) / (m + p - 1))
    assert metrics.bubble_overhead(run) == pytest.approx((p - 1) / m)
    assert run.in_flight == [m if order == "gpipe" else min(m, p - stage) for stage in range(p)]


def test_in_flight_counts_a_microbatch_by_the_share_of_blocks_that_hold_it():
    names = [
        "Forward 3 mb0",
        "Forward 4 mb0",
        "Forward 3 mb0",  # again: held already
        "Forward 3 mb1",
        "Backward 4 mb0",
        "BackwardInput 3 mb0",  # its BackwardWeight still needs what entered
    ]
    names += ["Forward 3 mb2", "BackwardWeight 3 mb0", "Forward 3 mb3", "Backward 3 mb1"]
    run = a_run([(1, "compute", name, 0, i, i + 1) for i, name in enumerate(names)], ranks=2)
    assert run.in_flight == [0, 1.5]
    again = a_run([(1, "compute", name, 0, i, i + 1) for i, name in enumerate(names[:2])], ranks=2)
    assert again.in_flight == [0, 1] and isinstance(again.in_flight[1], int)


def test_bytes_are_the_senders():
    run = a_run(TWO_STEPS, ranks=3, steps=2)
    assert run.bytes_sent == [100.0, 100.0, 0.0]


def test_instructions_stand_in_order_of_start():
    spans = [
        (1, "compute", "Forward 1 mb0", 0, 1.0, 2.0),
        (1, "compute", "Load mb0", 0, 1.0, 1.0),
        (1, "data", "AllReduce Grads(0) over data", 0, 5.0, 6.0),
        (0, "compute", "Loss mb0", 0, 0.0, 0.0),
        (0, "compute", "Backward 0 mb0", 0, 0.0, 0.0),
    ]
    assert a_run(spans, ranks=2).instructions == {
        (0, "compute"): ["Loss mb0", "Backward 0 mb0"],
        (1, "compute"): ["Load mb0", "Forward 1 mb0"],
        (1, "data"): ["AllReduce Grads(0) over data"],
    }


def test_losses_add_up_over_microbatches_and_average_over_ranks():
    samples = [Sample(0, 0, 1.0, "loss", 0.5), Sample(0, 0, 2.0, "loss", 1.5), Sample(1, 0, 1.0, "loss", 4.0)]
    samples += [Sample(1, 2, 5.0, "loss", 1.0), Sample(1, 2, 5.0, "own", 9.0)]
    losses = a_run([], ranks=2, steps=3, samples=samples).losses
    assert losses[0] == 3.0 and math.isnan(losses[1]) and losses[2] == 1.0


@pytest.mark.parametrize("missing, expected", [([], (2 * 1 + 3 * 2 + 3 * 4) / 8), ([0], 3.0), ([1], 14 / 5)])
def test_slices_that_are_larger_count_more(missing: list[int], expected: float):
    """Eight samples on three workers are 2, 3 and 3; a worker that was given up keeps the others' weights."""
    samples = [Sample(rank, 0, 1.0, "loss", 2.0**rank) for rank in range(3) if rank not in missing]
    samples += [Sample(rank, 1, 1.0, "loss", 1.0) for rank in range(3)]
    losses = a_run([], ranks=3, steps=2, samples=samples).losses
    assert losses == pytest.approx([expected, 1.0], rel=1e-15)


def test_asynchronous_losses_are_rows_in_order_of_time():
    samples = [Sample(2, 0, 3.0, "loss", 0.5, 4), Sample(1, 0, 1.0, "loss", 0.25, 1), Sample(1, 0, 2.0, "loss", 0.5, 1)]
    run = a_run([], ranks=3, workers=(1, 2), samples=samples, asynchronous=True)
    assert run.losses == [LossRow(2.0, 1, 1, 0.75), LossRow(3.0, 2, 4, 0.5)]
    assert metrics.final_loss(run) == 0.625


def test_staleness_stands_in_order_of_time():
    samples = [Sample(0, 0, 2.0, "staleness", 3.0), Sample(1, 0, 1.0, "staleness", 1.0), Sample(0, 0, 2.0, "loss", 7.0)]
    assert a_run([], ranks=2, samples=samples).staleness == [1, 3]


def test_a_run_of_nothing_has_numbers_too():
    run = a_run([], ranks=2, steps=2)
    assert (run.makespan, run.step_times, run.throughput, run.bubble) == (0.0, [0.0, 0.0], math.inf, 0.0)
    assert (run.losses, run.staleness, run.instructions) == ([], [], {})
    assert run.busy == run.bytes_sent == run.exposed_communication == run.waiting == [0.0, 0.0]
    assert run.in_flight == [0, 0] and "loss" not in run.summary()


def test_summary_holds_the_main_numbers():
    samples = [Sample(0, 1, 2.0, "loss", 0.5), Sample(0, 0, 2.0, "staleness", 1.0), Sample(0, 0, 2.0, "staleness", 2.0)]
    run = a_run(TWO_STEPS, ranks=2, steps=2, samples=samples)
    assert run.summary() == {
        "makespan": 8.0,
        "step_time": 4.0,
        "throughput": 2.0,
        "bubble": run.bubble,
        "exposed_communication": 1.5,
        "bytes_sent": 200.0,
        "loss": 0.5,
        "staleness": 1.5,
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (33.0, "33 s"), (12345.6, "12,346 s"), (0.0123, "12.3 ms"), (4.5e-6, "4.5 µs"), (2e-9, "2 ns")],
)
def test_times_are_readable(seconds: float, text: str):
    assert metrics.readable(seconds) == text


def test_spans_are_columns_that_look_like_objects():
    spans = a_run(TWO_STEPS, ranks=2).spans
    assert len(spans) == 9 and list(spans)[3] == spans[3] == Span(*TWO_STEPS[3])
    assert spans[-1] == Span(*TWO_STEPS[-1]) and spans[:2] == [spans[0], spans[1]]
    assert spans.streams == ["compute", "data"] and spans.stream("data") == 1 and spans.stream("new") == 2
    assert spans.table().shape == (9, 7) and not spans.table().flags.writeable
    with pytest.raises(IndexError):
        spans[9]


def test_spans_are_a_frame():
    frame = a_run(TWO_STEPS, ranks=2).spans.frame()
    assert list(frame.columns) == list(Span._fields)
    assert frame[frame.stream == "data"].bytes.sum() == 200.0
    assert frame.instruction[0] == "Load mb0" and frame["rank"].dtype.kind == "i"
