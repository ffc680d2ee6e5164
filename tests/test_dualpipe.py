"""DualPipe as an order of one's own (B11): chunks lie like a V, and forward passes run beside backward ones.

DeepSeek-AI 2024 (arXiv:2412.19437, section 3.2.1), in the form that needs no second copy of the parameters: rank r of n
holds chunks r and 2n-1-r of 2n. What they overlap inside of a pair of passes is not modelled: F&B takes F + B, and what
F gives is sent before B.
"""

from __future__ import annotations

from collections import Counter, deque

import pytest

import simulator as sim
from simulator import theory

FORWARD, BACKWARD, WEIGHT = 1.0, 2.0, 1.0


def dual_pipe(rank: int, ranks: int, microbatches: int) -> list[tuple[str, int, int]]:
    """The tasks of a rank. A word is a pass through chunk 0, down the ranks, or chunk 1, back up; W is the oldest one.

    Whole backward passes come in pairs with forward ones; where these are missing, their halves fill what is left.
    """
    below, pairs = ranks - rank - 1, microbatches - 2 * ranks + rank + 1
    words = ["F0"] * 2 * below + ["F0", "F1"] * (rank + 1) + ["I1", "W", "F1"] * below
    words += ["F0", "B1", "F1", "B0"] * pairs + ["B1", "F1", "B0"] * below
    ending = ["B1", "B0"] * (rank + 1)
    words += ending[: rank + 1] + [word.replace("B", "I") for word in ending[rank + 1 :]]
    words += ["W", "I0"] * below + ["W"] * (rank + 1)
    seen, waiting, tasks = Counter[str](), deque[tuple[int, int]](), []
    for word in words:
        if word == "W":
            tasks.append((word, *waiting.popleft()))
            continue
        passed = word.replace("I", "B")
        place = seen[passed], int(word[1])
        seen[passed] += 1
        tasks.append((word[0], *place))
        if word[0] == "I":
            waiting.append(place)
    return tasks


def run_of(schedule: object, ranks: int, microbatches: int) -> sim.Run:
    """Of a model of eight blocks, or as many as there are chunks."""
    order = sim.Pipeline(schedule, microbatches, placement=None if isinstance(schedule, str) else "v")  # type: ignore[arg-type]
    model = sim.Model.of_times(ranks * order.chunks_each, FORWARD, BACKWARD, batch=microbatches, weight=WEIGHT)
    return sim.simulate(order, model, sim.cluster("ideal", ranks=ranks), steps=1)


def beyond(run: sim.Run) -> float:
    """How much longer a step takes than each rank computes."""
    assert run.busy == pytest.approx([run.busy[0]] * run.ranks)
    return run.makespan - run.busy[0]


@pytest.mark.parametrize("ranks, more", [(1, 0), (2, 0), (2, 5), (3, 4), (4, 0), (4, 8), (6, 3)])
def test_b11_the_bubble_of_dualpipe(ranks: int, more: int):
    """At most (p/2 - 1)(F&B + B - 3W) for p = 2·ranks stages, and p + 1 activations of a chunk.

    It is b = B - W less per rank, as the next rank need not wait for the end of a pair: (p/2 - 1)(F + B - 2W).
    """
    microbatches = 2 * ranks + more
    run = run_of([dual_pipe(rank, ranks, microbatches) for rank in range(ranks)], ranks, microbatches)
    published = (ranks - 1) * (FORWARD + BACKWARD + BACKWARD - 3 * WEIGHT)
    assert beyond(run) == pytest.approx((ranks - 1) * (FORWARD + BACKWARD - 2 * WEIGHT))
    assert beyond(run) <= published
    assert max(run.in_flight) == (2 * ranks + 1) / 2


def test_b11_eight_stages_under_three_schedules():
    """7 and 21 s beyond computing, and at most 6. B12: F + B - 2W with the whole B is F + b - W with its half b."""
    microbatches = 24
    dual = run_of([dual_pipe(rank, 4, microbatches) for rank in range(4)], 4, microbatches)
    half, plain = run_of("zb-h1", 8, microbatches), run_of("1f1b", 8, microbatches)
    assert beyond(dual) <= 6 and [beyond(half), beyond(plain)] == [7, 21]
    assert beyond(half) == 7 * (FORWARD + BACKWARD - 2 * WEIGHT)
    assert beyond(half) == theory.zero_bubble_idle("zb-h1", 8, FORWARD, BACKWARD - WEIGHT, WEIGHT)
