"""Pictures: they are drawn without a screen, and show what was observed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from lab import plots
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


def test_timelines_are_of_runs():
    for draw in (lambda: plots.timeline("x"), lambda: plots.two_timelines(a_run(), None)):
        with pytest.raises(ValueError, match="run is a Run"):
            draw()


def test_what_does_not_fit_is_left_out_and_said():
    ax = plots.timeline(a_run(ranks=4, steps=30, blocks=40))
    assert bars(ax) == 15 * 4 * 81 and "(steps 0–14 of 0–29 shown)" in drawn(ax)
    ax = plots.timeline(a_run(ranks=40, steps=2, blocks=100))
    assert bars(ax) <= plots.BARS and "step 0 of 0–1 and 24 of 40 ranks" in drawn(ax)
    ax = plots.timeline(a_run(ranks=80, steps=1, servers=40))
    assert "(32 of 80 ranks shown)" in drawn(ax) and "server 0" in labels(ax) and "rank 54" in labels(ax)
    assert bars(plots.timeline(a_run(ranks=1, steps=1, blocks=3000))) == plots.BARS


def test_microbatches_are_printed_where_there_is_room():
    assert [text.get_text() for text in plots.timeline(a_run(1, 1, microbatches=3)).texts] == list(
        "012012"
    )  # forward, then backward
    assert not plots.timeline(a_run(1, 1, microbatches=1)).texts
    assert not plots.timeline(a_run(1, 1, microbatches=300)).texts


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
    assert drawn(plots.timeline(a_run(ranks=1, steps=1, spans=spans)))


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
