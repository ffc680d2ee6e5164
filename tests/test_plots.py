"""Pictures: they are drawn without a screen, and show what was observed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import PolyCollection

import lab
import simulator as sim
from lab import plots
from lab.comparison import table
from lab.legends import COLOURS
from simulator import metrics
from simulator.run import Run, Sample, Spans


@pytest.fixture(autouse=True)
def no_screen() -> Iterator[None]:
    backend = matplotlib.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


def a_run(ranks: int = 2, steps: int = 2, blocks: int = 1, microbatches: int = 1, servers: int = 0, **more) -> Run:
    """Every worker runs forward and backward for a second and two, then reduces for one; servers update meanwhile."""
    spans, samples, time = Spans(), [], 0.0
    for step in range(steps):
        for rank in range(servers, ranks):
            now = time
            for name in (
                f"{what} {b} mb{m}"
                for m in range(microbatches)
                for what in ("Forward", "Backward")
                for b in range(blocks)
            ):
                spans.add(rank, "compute", name, step, now, now := now + (2.0 if name[0] == "B" else 1.0))
            spans.add(rank, "data", "AllReduce Grads(0) over data", step, now, now + 1.0, 8.0)
            samples.append(Sample(rank, step, now, "loss", 1 / (1 + step) + rank, step))
        for server in range(servers):
            spans.add(server, "compute", "Update Params(0)", 7 * step, now, now + 1.0)
        time = now + 1.0
    run = Run(
        clock="virtual",
        strategy="S()",
        workload="w",
        cluster="c",
        ranks=ranks,
        workers=tuple(range(servers, ranks)),
        steps=steps,
        seed=0,
        batch=8,
        spans=spans,
        samples=samples,
    )
    return replace(run, **more)


def bars(ax: plt.Axes) -> int:
    return sum(len(c.get_paths()) for c in ax.collections if isinstance(c, PolyCollection))


def drawn(ax: plt.Axes) -> str:
    ax.figure.canvas.draw()
    return ax.get_title(loc="left")


def labels(ax: plt.Axes) -> list[str]:
    return [text.get_text() for text in ax.get_yticklabels()]


def test_a_timeline_has_a_bar_for_every_span_and_a_row_for_every_rank():
    ax = plots.timeline(a_run(ranks=3, servers=1))
    assert drawn(ax) == "S(), virtual clock:\n4 s a step, workers idle 25% of the time"
    assert bars(ax) == len(a_run(ranks=3, servers=1).spans)
    assert labels(ax) == ["server 0", "rank 1", "rank 2"]
    assert ax.get_xlim() == (0, 8) and ax.get_xlabel() == "time [s]"
    assert [text.get_text() for text in ax.figure.legends[0].get_texts()] == [
        "Forward",
        "Backward",
        "Update",
        "AllReduce",
    ]


def test_steps_are_chosen_and_start_at_zero():
    run = a_run(steps=5, ranks=3, servers=1)
    ax = plots.timeline(run, steps=range(2, 4))
    assert "(steps 2–3 of 0–4 shown)" in drawn(ax) and ax.get_xlim() == (0, 8)
    assert ax.get_xlabel() == "time since step 2 began [s]" and bars(ax) == len(run.spans) * 2 / 5
    assert "(step 0 of 0–4 shown)" in drawn(plots.timeline(run, steps=1))
    with pytest.raises(ValueError, match=r"steps 0 to 4; got steps=range\(7, 9\)"):
        plots.timeline(run, steps=range(7, 9))
    for steps in (0, -1, 9):
        with pytest.raises(ValueError, match=f"of a run of 5 steps, 1 to 5 can be shown.*; got steps={steps}"):
            plots.timeline(run, steps=steps)


def test_timelines_are_of_runs():
    for draw in (lambda: plots.timeline("x"), lambda: plots.two_timelines(a_run(), None)):
        with pytest.raises(ValueError, match=r"(run|wall) is a Run"):
            draw()


def test_steps_that_do_not_fit_are_left_out_and_said():
    ax = plots.timeline(a_run(ranks=4, steps=30, blocks=40))
    assert bars(ax) == 15 * 4 * 81 and "(steps 0–14 of 0–29 shown)" in drawn(ax)


def test_what_a_rank_does_for_a_microbatch_at_a_time_is_one_bar_where_its_parts_do_not_fit():
    ax = plots.timeline(a_run(ranks=40, steps=2, blocks=100))
    assert bars(ax) == 32 * 3 and ax.get_xlim() == (0, 301)
    assert "(step 0 of 0–1 and 32 of 40 ranks shown; all that a rank does for" in drawn(ax)
    parts = (f"{what} 0.{at} mb0" for what in ("ForwardPart", "BackwardPart") for at in range(2000))
    spans = Spans()
    for at, part in enumerate(parts):
        spans.add(0, "compute", part, 0, 2.0 * at, 2.0 * at + 1)
        spans.add(0, "compute", f"AllGather Inner(0.{at}, mb 0) over tensor", 0, 2.0 * at + 1, 2.0 * at + 2)
    ax = plots.timeline(a_run(ranks=1, steps=1, spans=spans))
    assert bars(ax) == 2  # forward and backward, each with what it gathers meanwhile
    assert [text.get_text() for text in ax.figure.legends[0].get_texts()] == ["Forward", "Backward"]


def test_ranks_that_do_not_fit_are_left_out_evenly_and_said():
    ax = plots.timeline(a_run(ranks=80, steps=1, servers=40))
    assert "(32 of 80 ranks shown)" in drawn(ax) and "server 0" in labels(ax) and "rank 75" in labels(ax)
    every = plots.timeline(a_run(ranks=8, steps=1, microbatches=1000))  # 2 001 bars a rank
    assert "(2 of 8 ranks shown" in drawn(every) and labels(every) == ["rank 0", "rank 4"]


def test_a_picture_that_ends_early_says_when():
    ax = plots.timeline(a_run(ranks=1, steps=1, microbatches=5000))
    assert bars(ax) == plots.BARS and ax.get_xlim() == (0, 7500)
    assert "(the first 7,500 s of 15,001 s shown; all that" in drawn(ax).replace("\n", " ")


def test_ranks_that_stand_for_others_are_not_counted_as_left_out():
    ax = plots.timeline(a_run(ranks=4, alike=(0, 1, 1, 1), spans=a_run(ranks=2).spans))
    assert "(2 ranks stand for all 4)" in drawn(ax) and labels(ax) == ["rank 0", "rank 1 ×3"]


def test_a_title_is_no_wider_than_its_picture():
    _, ax = plt.subplots(1, 2, figsize=(10, 3))
    run = a_run(strategy="Pipeline(schedule='1f1b', microbatches=24) + " * 5, ranks=80, steps=80)
    plots.timeline(run, ax=ax[0])
    assert "…" in drawn(ax[0]) and max(map(len, drawn(ax[0]).splitlines())) < 60
    assert ax[0]._left_title.get_window_extent().x1 < ax[1].get_window_extent().x0 + 20


def colours(ax: plt.Axes, rank: int) -> dict[str, float]:
    """How much time of a rank's row each colour takes."""
    found: dict[str, float] = {}
    for collection in ax.collections:
        extents = [path.get_extents() for path in collection.get_paths()]
        length = sum(box.width for box in extents if rank < box.y0 < rank + 1)
        colour = matplotlib.colors.to_hex(collection.get_facecolor()[0]).upper()
        found[colour] = found.get(colour, 0.0) + length
    return {colour: length for colour, length in found.items() if length}


@pytest.mark.parametrize("detail", ["flow", "messages"])
def test_who_waits_for_a_straggler_is_drawn_as_waiting(detail):
    """Rank 2 needs 36 ms, the others 18: these wait for 18 ms, and all reduce for 2.16."""
    model = sim.Model.of_times(blocks=6, forward=1e-3, backward=2e-3, parameters=350_000)
    cluster = sim.Cluster.flat(ranks=4, bandwidth=1e9, latency=10e-6)
    noise = sim.noise.slow({2: 2.0})
    ax = plots.timeline(sim.simulate(sim.DataParallel(), model, cluster, steps=1, noise=noise, detail=detail))
    waits, reduces = COLOURS["waiting"], COLOURS["AllReduce"]
    found = [colours(ax, rank) for rank in range(4)]
    assert [one.get(waits, 0.0) for one in found] == pytest.approx([18, 18, 0, 18])
    assert [one[reduces] for one in found] == pytest.approx([2.16] * 4)
    assert "waiting" in [text.get_text() for text in ax.figure.legends[0].get_texts()]


def test_the_last_member_of_a_collective_is_found_on_either_clock():
    """Two groups reduce at once under one name. On real ranks ends differ a little: those that overlap go together."""
    for late in (0.0, 0.01):
        spans = Spans()
        for rank, (start, end) in enumerate([(0, 4), (3, 4 + late), (5, 9), (8, 9 + late)]):
            spans.add(rank, "data", "AllReduce Grads(0) over data", 0, float(start), end)
        spans.add(0, "data", "AllReduce Grads(0) over data", 1, 10.0, 11.0)  # the next, not yet come to by others
        assert list(metrics.last_arrivals(a_run(ranks=4, spans=spans))) == [3, 3, 8, 8, 10]
    assert not len(metrics.last_arrivals(a_run(spans=Spans())))


def test_microbatches_are_printed_where_there_is_room():
    printed = plots.timeline(a_run(1, 1, microbatches=3, blocks=10)).texts
    assert [text.get_text() for text in printed] == list("001122")  # each forward and backward, whatever its blocks
    assert not plots.timeline(a_run(1, 1, microbatches=1)).texts
    assert not plots.timeline(a_run(1, 1, microbatches=300)).texts


def test_a_legend_lies_over_no_other_axes_and_names_what_is_seen():
    for layout in (None, "constrained"):
        figure, axes = plt.subplots(2, 2, figsize=(10, 6), layout=layout)
        spans = a_run(blocks=3).spans
        spans.add(0, "compute", "Load mb0", 0, 0.0, 0.0)
        for ax in axes.flat:
            plots.timeline(a_run(blocks=3, spans=spans), ax=ax)
        figure.canvas.draw()
        for ax in axes.flat:
            legend = ax.get_legend().get_window_extent()
            assert legend.y0 >= 0 and legend.y1 <= ax.xaxis.get_tightbbox().y0
            assert not any(legend.overlaps(one.get_window_extent()) for one in axes.flat)
            assert not any(legend.overlaps(one._left_title.get_window_extent()) for one in axes.flat)
            assert [text.get_text() for text in ax.get_legend().get_texts()] == ["Forward", "Backward", "AllReduce"]


def test_a_timeline_draws_where_it_is_told():
    _, axes = plt.subplots(2)
    assert plots.timeline(a_run(), ax=axes[1]) is axes[1]
    assert axes[1].get_legend() and not axes[0].collections


def test_sends_to_many_ranks_share_a_row():
    spans = Spans()
    for peer in range(1, 5):
        spans.add(0, f"to {peer}", f"Send a[0] to world {peer}", 0, peer * 1e-3, peer * 1e-3 + 2e-3, 8.0)
    spans.add(0, "compute", "Peculiar thing", 0, 0.0, 1e-3)
    ax = plots.timeline(a_run(ranks=1, steps=1, spans=spans))
    heights = {path.vertices[0, 1] for c in ax.collections for path in c.get_paths()}
    assert len(heights) == 2 and ax.get_xlabel() == "time [ms]"
    assert [text.get_text() for text in ax.figure.legends[0].get_texts()] == ["Send", "Peculiar"]


def test_a_run_that_took_no_time_is_drawn():
    spans = Spans()
    spans.add(0, "compute", "Forward 0 mb0", 0, 0.0, 0.0)
    ax = plots.timeline(a_run(ranks=1, steps=1, spans=spans))
    assert drawn(ax) and [text.get_text() for text in ax.texts] == ["nothing took any time"]


def test_a_server_that_waits_since_before_is_drawn_from_the_beginning():
    """Its Recv began in the step before, and goes on in the step that is shown; all other rows begin with this step."""
    run = a_run(steps=3, ranks=3, servers=1)
    run.spans.add(0, "compute", "Recv Grads(0) from any", 0, 4.5, 11.0)
    run.spans.add(1, "compute", "Forward 0 mb0", 1, 4.0, 9.0)  # of another step, however long
    ax = plots.timeline(run, steps=range(2, 3))
    assert colours(ax, 0)[COLOURS["Recv"]] == 3.0 and ax.get_xlim() == (0, 4)
    assert colours(ax, 1)[COLOURS["Forward"]] == 1.0


def test_two_clocks_share_the_time_axis():
    short, long = a_run(blocks=1), a_run(blocks=3, clock="wall")
    figure = plots.two_timelines(short, long, steps=1)
    upper, lower = figure.axes
    assert upper.get_xlim() == lower.get_xlim() == (0, 10)
    assert "virtual clock" in drawn(upper) and "wall clock" in drawn(lower) and len(figure.legends) == 1


def test_losses_against_time_and_step():
    virtual, wall = a_run(steps=4), a_run(steps=4, clock="wall", blocks=2)
    ax = plots.losses([virtual, wall])
    assert [line.get_linestyle() for line in ax.lines] == ["--", "-"]
    assert ax.lines[0].get_color() == ax.lines[1].get_color()
    assert list(ax.lines[0].get_xdata()) == [4, 8, 12, 16]
    assert list(ax.lines[0].get_ydata()) == virtual.losses
    assert drawn(ax) == "Loss against time: lowest at the end is S(), virtual clock, with 0.75"
    steps = plots.losses(virtual, against="step")
    assert list(steps.lines[0].get_xdata()) == [1, 2, 3, 4] and drawn(steps) == "Loss against step ends at 0.75"


def test_asynchronous_losses_are_means_over_as_many_rows_as_workers():
    run = a_run(ranks=3, servers=1, steps=3, asynchronous=True, strategy="PS()")
    ax = plots.losses({"sync": a_run(), "async": run}, against="step")
    line = ax.lines[1]
    assert line.get_color() != ax.lines[0].get_color() and line.get_label() == "async"
    rows = [row.loss for row in run.losses]
    assert np.allclose(line.get_ydata(), (np.array(rows[1:]) + rows[:-1]) / 2)
    assert np.allclose(line.get_xdata(), np.arange(2, 7) / 2)
    assert len(plots.losses(run).lines[0].get_xdata()) == 5
    assert "samples/s" in drawn(plots.timeline(run))


def test_losses_ask_for_runs_that_learned():
    with pytest.raises(ValueError, match="S\\(\\), virtual clock noted none: simulate or execute a Problem"):
        plots.losses(a_run(samples=[]))
    with pytest.raises(ValueError, match="'time' or 'step'; got against='epoch'"):
        plots.losses(a_run(), against="epoch")


def test_two_runs_of_one_name_are_both_drawn():
    assert len(plots.losses([a_run(), a_run()]).lines) == 2


def test_the_same_run_gives_the_same_picture():
    pictures = []
    for _ in range(2):
        figure = plots.timeline(a_run()).figure
        figure.canvas.draw()
        pictures.append(np.asarray(figure.canvas.buffer_rgba()).copy())
    assert np.array_equal(*pictures)


# ---------------------------------------------------------------- mistakes

NO_RUN = {"a number": 3.5, "a list": [1, 2], "its text": "<Run of Single()>", "nothing": None}


@pytest.mark.parametrize("given", NO_RUN.values(), ids=NO_RUN)
@pytest.mark.parametrize(
    "picture",
    [
        plots.timeline,
        plots.losses,
        lambda given: plots.losses([a_run(), given]),
        lambda given: plots.losses({"mine": given}),
        lambda given: plots.two_timelines(given, a_run()),
        lambda given: plots.two_timelines(a_run(), given),
        lambda given: table([given]),
        table,
    ],
    ids=["timeline", "losses", "losses of several", "losses by name", "first", "second", "table of one", "table"],
)
def test_what_is_no_run_is_refused_by_name(picture, given):
    with pytest.raises(ValueError, match=r"(runs?|virtual|wall|pair|compared) is .*; got .*="):
        picture(given)


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda run: plots.timeline(run, steps="2"), r"steps is how many steps .*; got steps='2'"),
        (lambda run: plots.timeline(run, steps=1.5), r"got steps=1.5"),
        (lambda run: plots.timeline(run, plt.subplots(2)[1]), r"ax is one Axes of matplotlib.*; got ax=array"),
        (lambda run: plots.losses(run, plt.figure()), r"ax is one Axes of matplotlib.*; got ax=<Figure"),
        (lambda run: plots.losses([]), "one or more Runs; got none"),
        (lambda run: plots.losses({}), "one or more Runs; got none"),
    ],
)
def test_what_cannot_be_drawn_so_is_refused(draw, says):
    with pytest.raises(ValueError, match=says):
        draw(a_run())


def test_something_is_compared():
    with pytest.raises(ValueError, match=r"strategies are compared, one or more.*; got none"):
        lab.compare([], sim.problem("quadratic"))


def test_a_machine_is_calibrated_for_a_problem():
    with pytest.raises(ValueError, match=r"problem is a Problem, such as .*; got problem='digits-mlp'"):
        lab.calibrate("digits-mlp")
