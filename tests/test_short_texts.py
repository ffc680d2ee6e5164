"""What notebooks show of an object that ends a cell: a line, or the grid that it is; not every number in it."""

from __future__ import annotations

import pytest

import simulator as sim
from simulator.failures import Failures, simulate_training

MODEL = sim.model("gpt2-small")
BIG = sim.cluster("dgx-a100", nodes=128)
LAW = Failures(mtbf=30 * 86400, checkpoint=30, restart=120)


def a_run() -> sim.Run:
    return sim.simulate(sim.DataParallel(), MODEL, sim.cluster("dgx-a100", nodes=1), steps=2, batch=8)


SHOWN = {
    "cluster": (lambda: BIG, "<Cluster of 1024 ranks: 128 x 8 NVIDIA A100"),
    "block": (lambda: MODEL.blocks[1], "<Block of 7,087,872 parameters: 1.772e+10 FLOP forward"),
    "problem": (lambda: sim.problem("digits-mlp"), "<Problem 'digits-mlp': float32, updated by SGD("),
    "memory": (lambda: sim.memory(sim.DataParallel(), MODEL, 8)[0], "<RankMemory: at most 1.991e+09 B (parameters"),
    "forecast": (lambda: a_run().extrapolate(steps=100), "<Forecast: 100 steps in "),
    "training": (
        lambda: simulate_training(5.0, nodes=64, hours=24 * 365, failures=LAW),
        "<Training on 64 nodes for 8,760 h: 6,039,442 useful steps of 5 s, 819 crashes, goodput 95.8%>",
    ),
}


@pytest.mark.parametrize(("make", "begins"), SHOWN.values(), ids=SHOWN)
def test_an_object_shows_itself_in_a_line(make, begins):
    shown = repr(make())
    assert shown.startswith(begins) and len(shown) < 300 and "\n" not in shown and "0x" not in shown


def test_a_listing_shows_its_grid():
    listing = sim.listing(sim.DataParallel(), ranks=2)
    assert repr(listing) == str(listing) and "| rank 0 " in repr(listing)


def test_dots_stand_for_blocks_without_a_gap():
    texts = [str(sim.Params(blocks)) for blocks in ((0, 1, 2), (2, 1, 0), (0, 7, 2), (0, 2), 3)]
    assert texts == ["Params(0..2)", "Params(2..0)", "Params(0, 7, 2)", "Params(0, 2)", "Params(3)"]


def test_a_stack_shows_how_it_is_made():
    whole = sim.stack(sim.Pipeline("1f1b", microbatches=4), sim.DataParallel())
    assert repr(whole) == "stack(Pipeline(schedule='1f1b', microbatches=4), DataParallel())"
    names = {"stack": sim.stack, "Pipeline": sim.Pipeline, "DataParallel": sim.DataParallel}
    assert eval(repr(whole), names) == whole
