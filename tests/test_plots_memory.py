"""Memory over time, in tables and in pictures: what ranks hold, at the times that were observed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator as sim
from lab import plots
from lab.holdings import KINDS
from simulator import metrics

MODEL = sim.Model.of_times(blocks=4, parameters=4000, activation_bytes=100, batch=8)
ADAM = sim.rules.Adam()


@pytest.fixture(autouse=True)
def no_screen() -> Iterator[None]:
    backend = matplotlib.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


def a_run(strategy, ranks: int = 4, steps: int = 2, model: sim.Model = MODEL, **more) -> sim.Run:
    return sim.simulate(strategy, model, sim.cluster("ideal", ranks=ranks), steps=steps, **more)


# ---------------------------------------------------------------- over time


def test_a_single_process_holds_gradients_from_their_backward_pass_to_the_update_C1():
    """Blocks of 1 and 2 s: forward until 4 s, backward until 12 s. 4 bytes a number, two of them remembered by Adam."""
    found = metrics.memory_over_time(a_run(sim.Single(rule=ADAM), ranks=1))
    gradients = {now.start: now.held.gradients for now in found}  # the last of those that begin at one time
    assert [gradients[second] for second in (3.0, 4.0, 6.0, 8.0, 10.0)] == [0, 4000, 8000, 12000, 16000]
    assert [gradients[second] for second in (15.0, 16.0, 22.0)] == [0, 4000, 16000]
    optimizer = {now.step: now.held.optimizer for now in found}
    assert optimizer == {0: 32000, 1: 32000} and found[0].held.optimizer == 0
    assert all(now.held.parameters == 16000 for now in found)


PLANS = {
    "data parallel": sim.DataParallel(rule=ADAM),
    "sharded": sim.Sharded(3, rule=ADAM),
    "1f1b": sim.Pipeline("1f1b", microbatches=8, rule=ADAM),
    "zero bubble": sim.Pipeline("zb-h1", microbatches=8, rule=ADAM),
    "interleaved": sim.Pipeline("interleaved", microbatches=4, stages=2, rule=ADAM),
    "server": sim.ParameterServer(mode="sync", rule=ADAM),
    "pipedream": sim.PipeDream(rule=ADAM),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@settings(max_examples=5, deadline=None)
@given(steps=st.integers(1, 4), bandwidth=st.sampled_from([1e2, 1e4, 1e9]))
def test_time_goes_on_and_what_is_held_is_what_memory_says(plan, steps, bandwidth):
    cluster = sim.Cluster.flat(ranks=2, bandwidth=bandwidth, latency=1e-3)
    run = sim.simulate(plan, MODEL, cluster, steps=steps)
    said = sim.memory(plan, MODEL, ranks=2)
    for rank in range(run.ranks):
        found = metrics.memory_over_time(run, rank)
        starts = [now.start for now in found]
        assert starts == sorted(starts) and starts[0] == 0 and starts[-1] <= run.makespan
        assert [now.step for now in found] == sorted(now.step for now in found)
        assert {now.step for now in found} == set(range(steps))
        held = [moment.held for moment in said[rank].over_time]
        assert all(now.held in held for now in found)
        if steps > 1 and not isinstance(plan, sim.PipeDream):
            assert max(now.held.total for now in found if now.step) == said[rank].most.total == run.peak_memory[rank]


def test_parts_of_a_block_are_the_block_for_memory():
    """A block begins with the first of its parts, and goes on until its last has ended."""
    model = sim.transformer(layers=2, hidden=64, heads=4, sequence=32, vocab=100, batch=8)
    run = a_run(sim.TensorParallel(), 2, 1, model)
    began = {
        span.instruction: span.start for span in run.spans if span.rank == 0 and "Part" in span.instruction
    }
    moments = sim.memory(sim.TensorParallel(), model, 2)[0].over_time
    first = [moment.instruction for moment in moments if moment.step == 0]
    starts = [now.start for now in metrics.memory_over_time(run)]
    for block in range(4):
        assert starts[first.index(f"Forward {block} mb0")] == began[f"ForwardPart {block}.0 mb0"]
        assert starts[first.index(f"Backward {block} mb0")] == min(
            start for part, start in began.items() if part.startswith(f"BackwardPart {block}.")
        )


def test_ranks_that_were_not_simulated_hold_what_those_do_that_stand_for_them():
    model = replace(MODEL, batch=64)
    run = a_run(sim.DataParallel(rule=ADAM), ranks=64, model=model, fold="always")
    assert run.alike and metrics.memory_over_time(run, 63) == metrics.memory_over_time(run, 0)


# ---------------------------------------------------------------- pictures


def heights(ax: plt.Axes) -> dict[str, float]:
    """How high the area of each kind is at its highest, in the unit of the axis."""
    found = {}
    for area in ax.collections:
        points = area.get_paths()[0].vertices
        xs = np.unique(points[:, 0])
        middle = (xs[:-1] + xs[1:]) / 2
        found[str(area.get_label())] = max((_height(points, x) for x in middle), default=0.0)
    return found


def _height(points: np.ndarray, x: float) -> float:
    """Between the lines of an outline that cross a place."""
    crossing = [a[1] for a, b in pairwise(points) if min(a[0], b[0]) < x < max(a[0], b[0])]
    return max(crossing) - min(crossing) if crossing else 0.0


def test_a_picture_stacks_the_kinds_of_every_rank_that_differs():
    run = a_run(sim.stack(sim.Pipeline("1f1b", 4, stages=2), sim.Sharded(1, rule=ADAM)))
    figure = plots.memory(run)
    assert [ax.get_ylabel() for ax in figure.axes] == ["rank 0 ×2\n[kB]", "rank 2 ×2\n[kB]"]
    for ax, rank in zip(figure.axes, (0, 2)):
        peak = sim.memory(sim.stack(sim.Pipeline("1f1b", 4, stages=2), sim.Sharded(1, rule=ADAM)), MODEL, 4)[rank].peak
        drawn = heights(ax)
        assert drawn == {kind: pytest.approx(getattr(peak, kind) / 1000) for kind in drawn if getattr(peak, kind)} | {
            kind: 0.0 for kind in drawn if not getattr(peak, kind)
        }
    assert figure.axes[-1].get_xlabel() == "time [s]" and figure.axes[-1].get_xlim() == (0, run.makespan)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(KINDS)
    assert "rank 0 ×2 holds most, " in figure.axes[0].get_title(loc="left").replace("\n", " ")


def test_a_device_is_drawn_where_it_is_near():
    def entries(room: float) -> list[str]:
        device = sim.Device("a chip", memory=room)
        run = sim.simulate(sim.Single(rule=ADAM), MODEL, sim.cluster("ideal", ranks=1, device=device), steps=2)
        return [text.get_text() for text in plots.memory(run).legends[0].get_texts()]

    most = sim.memory(sim.Single(rule=ADAM), MODEL, 1)[0].most.total
    assert "memory of a chip" in entries(1.9 * most) and "memory of a chip" not in entries(2.1 * most)


def test_what_memory_says_is_drawn_from_instruction_to_instruction():
    said = sim.memory(sim.Single(rule=ADAM), MODEL, 1)
    for given_ in (said, said[0]):
        figure = plots.memory(given_)
        ax, = figure.axes
        assert ax.get_xlabel() == "instructions of two steps" and ax.get_xlim() == (0, len(said[0].over_time))
        assert heights(ax)["gradients"] == pytest.approx(16.0)


def test_steps_and_ranks_are_chosen():
    run = a_run(sim.Pipeline("1f1b", 4), steps=4)
    figure = plots.memory(run, ranks=[1, 3], steps=range(2, 3))
    assert [ax.get_ylabel() for ax in figure.axes] == ["rank 1\n[kB]", "rank 3\n[kB]"]
    ends = metrics.step_ends(run)
    assert figure.axes[-1].get_xlabel() == "time since step 2 began [s]"
    assert figure.axes[-1].get_xlim() == (0, pytest.approx(ends[2] - ends[1]))
    assert len(plots.memory(a_run(sim.Pipeline("1f1b", 24), 12, 1, sim.Model.of_times(blocks=24, batch=24))).axes) == 8


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda run: plots.memory(3), "held is a Run, or what simulator.memory.*; got held=3"),
        (lambda run: plots.memory([run]), "held is a Run, or what simulator.memory.*; got held=<Run"),
        (lambda run: plots.memory([]), "held is a Run, or what simulator.memory.*; got none"),
        (lambda run: plots.memory(run, ranks=[7]), r"ranks are 0 to 0; got 7 among ranks=\[7\]"),
        (lambda run: plots.memory(run, ranks=[]), r"ranks are 0 to 0, one or more of them; got ranks=\[\]"),
        (lambda run: plots.memory(run, ranks=2), "ranks is a list of ranks, such as range.*; got ranks=2"),
        (lambda run: plots.memory(run, steps=9), "1 to 2 can be shown.*; got steps=9"),
        (lambda run: plots.memory(run, steps=range(5, 6)), r"steps 0 to 1; got steps=range\(5, 6\)"),
        (lambda run: plots.memory(sim.memory(sim.Single(), MODEL, 1), steps=1), "only a Run has steps.*; got steps=1"),
        (lambda run: plots.memory(replace(run, text=None)), "does not know its own.*use simulator.memory"),
        (lambda run: plots.memory(a_run(sim.ParameterServer(mode="async"))), "take a synchronous strategy"),
        (lambda run: metrics.memory_over_time(run, 1), "a run of 1 rank has rank 0 alone; got rank=1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, says):
    with pytest.raises(ValueError, match=says):
        draw(a_run(sim.Single(), ranks=1))
