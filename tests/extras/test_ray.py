"""The engine ``ray``: Ray Train's TorchTrainer."""

import pytest

import simulator as sim
from simulator.errors import DivergedError


@pytest.mark.parametrize(("name", "ranks", "batch"), [("digits-mlp", 2, 48), ("digits-conv", 3, 47)])
def test_data_parallel_equals_the_single_process_and_sends_what_a_ring_sends(name, ranks, batch, checks):
    problem = sim.problem(name, dtype="float64", batch=batch)
    run, truth = checks.run("ray", sim.DataParallel(), problem, ranks), checks.single(problem)
    assert checks.apart(run, truth) < 1e-12
    assert run.losses == pytest.approx(checks.virtual(sim.DataParallel(), problem, ranks).losses)
    assert run.ranks == ranks and run.workers == tuple(range(ranks)) and run.notes["engine"].startswith("ray")
    issued = {span.instruction: span.bytes for span in run.spans if span.instruction.startswith("AllReduce")}
    assert checks.size(problem) * 2 * (ranks - 1) / ranks in issued.values()  # A1


def test_a_rule_with_memory(checks):
    rule, problem = sim.rules.Momentum(0.05), sim.problem("digits-mlp", dtype="float64")
    run = checks.run("ray", sim.DataParallel(rule=rule), problem)
    assert checks.apart(run, checks.single(problem, rule)) < 1e-9


def test_an_error_of_a_rank_is_the_error_of_the_run(checks):
    with pytest.raises(DivergedError, match="a loss is a finite number"):
        checks.run("ray", sim.DataParallel(), sim.problem("digits-mlp", lr=1e30), steps=30)
