"""The engines ``tensorflow`` and ``tensorflow-mirrored``."""

import pytest
import torch

import simulator as sim
from simulator.errors import DivergedError

BOTH = pytest.mark.parametrize("engine", ["tensorflow", "tensorflow-mirrored"])


@BOTH
@pytest.mark.parametrize(("name", "ranks", "batch"), [("digits-mlp", 2, 48), ("digits-conv", 3, 47)])
def test_data_parallel_equals_the_single_process(engine, name, ranks, batch, checks):
    problem = sim.problem(name, dtype="float64", batch=batch)
    run, truth = checks.run(engine, sim.DataParallel(), problem, ranks), checks.single(problem)
    assert checks.apart(run, truth) < 1e-12
    sent = checks.size(problem) * 5 * 2 * (ranks - 1) / ranks if engine == "tensorflow" else 0.0  # A1
    assert run.bytes_sent == pytest.approx([sent] * ranks)
    assert run.losses == pytest.approx(checks.virtual(sim.DataParallel(), problem, ranks).losses)
    assert {(sample.rank, sample.step) for sample in run.samples} == {(r, s) for r in range(ranks) for s in range(5)}
    assert run.notes["engine"].startswith(f"{engine}: M") and run.clock == "wall"


@BOTH
def test_weight_decay_in_single_precision(engine, checks):
    rule, problem = sim.rules.SGD(0.2, weight_decay=0.1), sim.problem("digits-mlp")
    run = checks.run(engine, sim.DataParallel(rule=rule), problem)
    assert checks.apart(run, checks.single(problem, rule)) < 1e-5


def test_regression_with_tanh_and_without_bias(checks):
    def data(seed, step):
        inputs = torch.randn(12, 2, 5, 7)
        return inputs, inputs.mean((1, 2, 3))[:, None].expand(-1, 3).contiguous()

    blocks = [
        torch.nn.Sequential(torch.nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=(0, 1), bias=False), torch.nn.Tanh()),
        torch.nn.Sequential(torch.nn.Conv2d(4, 3, 1), torch.nn.Flatten(), torch.nn.Linear(36, 3, bias=False)),
    ]
    problem = sim.Problem(blocks, torch.nn.functional.mse_loss, data, dtype="float64")
    run = checks.run("tensorflow", sim.DataParallel(), problem)
    assert checks.apart(run, checks.single(problem)) < 1e-12


def test_a_server_with_one_worker_equals_the_single_process(checks):
    problem = sim.problem("digits-conv", dtype="float64")
    run, truth = checks.run("tensorflow", sim.ParameterServer(mode="async"), problem), checks.single(problem)
    assert checks.apart(run, truth) < 1e-12
    assert run.staleness == [0] * 5 and run.workers == (1,) and run.asynchronous
    assert [row.loss for row in run.losses] == pytest.approx(truth.losses)
    assert run.bytes_sent == [0.0, 5 * checks.size(problem)]


def test_servers_apply_every_gradient_once_and_learn(checks):
    problem, strategy = sim.problem("digits-mlp"), sim.ParameterServer(servers=2, mode="async")
    run = checks.run("tensorflow", strategy, problem, ranks=4, steps=150)
    assert len(run.staleness) == len(run.losses) == 300
    assert min(run.staleness) >= 0 and max(run.staleness) > 0 and sum(run.staleness) / 300 < 4
    assert {row.worker for row in run.losses} == {2, 3}
    assert problem.evaluate(run.parameters)["accuracy"] > 0.4  # chance is 0.1
    assert "ParameterServerStrategy" in run.notes["engine"]


@pytest.mark.parametrize("strategy", [sim.DataParallel(), sim.ParameterServer(mode="async")], ids=str)
def test_an_error_of_a_rank_is_the_error_of_the_run(strategy, checks):
    with pytest.raises(DivergedError, match="a loss is a finite number"):
        checks.run("tensorflow", strategy, sim.problem("digits-mlp", lr=1e30), steps=30)
