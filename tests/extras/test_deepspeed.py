"""The engine ``deepspeed``: ZeRO stages 0 and 1."""

from functools import partial

import pytest

import simulator as sim
from lab.extras import deepspeed
from lab.extras.preparing import ranks_once
from lab.running import job
from simulator.errors import DivergedError

RULES = [sim.rules.SGD(0.2), sim.rules.SGD(0.1, weight_decay=0.1), sim.rules.Momentum(0.05), sim.rules.Adam(0.001)]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("stage", [0, 1])
def test_both_stages_equal_the_single_process(stage, rule, checks):
    problem, truth = (problem := sim.problem("digits-mlp")), checks.single(problem, rule)
    asked = job(sim.DataParallel(rule=rule), problem, 2, 5, 3)
    run = asked.run(ranks_once(partial(deepspeed.train, stage), asked, 2, 60.0, False))
    assert checks.apart(run, truth) < 1e-5  # law 1, in float32


def test_data_parallel_sends_what_a_ring_sends(checks):
    problem = sim.problem("digits-conv", batch=47)
    run, truth = checks.run("deepspeed", sim.DataParallel(), problem, 3), checks.single(problem)
    assert checks.apart(run, truth) < 1e-5
    whole = [span for span in run.spans if span.instruction == f"AllReduce {checks.size(problem) // 4}"]
    assert len(whole) == 3 * 5 and {span.bytes for span in whole} == {checks.size(problem) * 4 / 3}  # A1
    assert run.notes["engine"].startswith("deepspeed: ZeRO stage 0")


def test_sharded_is_stage_1_and_the_others_are_refused(checks):
    problem = sim.problem("digits-mlp")
    run = checks.run("deepspeed", sim.Sharded(stage=1), problem)
    assert checks.apart(run, checks.single(problem)) < 1e-5 and "ZeRO stage 1" in run.notes["engine"]
    for stage in (2, 3):
        with pytest.raises(ValueError, match="ZeRO stages 0 and 1"):
            checks.run("deepspeed", sim.Sharded(stage=stage), problem)


def test_an_error_of_a_rank_is_the_error_of_the_run(checks):
    with pytest.raises(DivergedError, match="a loss is a finite number"):
        checks.run("deepspeed", sim.DataParallel(), sim.problem("digits-mlp", lr=1e30), steps=30)
