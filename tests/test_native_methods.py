"""PyTorch's compressed, local and asynchronous training; what it refuses; checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from math import fsum, inf

import psutil
import pytest
import torch
from common.launching import wait_for
from common.natively import SEED, STEPS, mean_losses, problem, psi, sent, truth
from common.runs import apart

import lab
import simulator as sim
from lab.engines import ENGINES, engine
from lab.launch import run_ranks
from lab.native import checkpoint, choosing, elastic
from simulator import compression
from simulator.rules import LARS, SGD, Scaled

# ---------------------------------------------------------------- compressed, local, asynchronous


def compressed(compressor: compression.Compressor, name: str = "mlp") -> sim.Run:
    strategy = sim.DataParallel(compression=compressor)
    return lab.execute(strategy, problem(name), ranks=2, steps=STEPS, seed=SEED, timeout=120, engine="native")


@pytest.mark.parametrize("kind, error", [("FP16", 1e-4), ("BF16", 1e-3)])
def test_half_precision_hooks_send_a_quarter_of_float64(kind: str, error: float):
    """Gradients lose all but 11 or 8 bits, so that parameters agree with the truth to three or four digits."""
    run = compressed(getattr(compression, kind)())
    assert sent(run, "AllReduce") == pytest.approx([psi("mlp") / 4] * 2)
    assert 1e-9 < apart(run.parameters, truth("mlp").parameters) < error


def test_powersgd_sends_factors_from_the_third_step_on():
    run = compressed(compression.ErrorFeedback(compression.PowerSGD(rank=2)))
    small = 0
    for array in problem("mlp").parameters(SEED).values():
        rows, columns = array.shape if array.ndim == 2 else (1, array.size)
        saves = array.ndim == 2 and 2 * 2 * (rows + columns) < rows * columns
        small += 8 * (2 * (rows + columns) if saves else array.size)
    per_step = [fsum(s.bytes for s in run.spans if (s.rank, s.step) == (1, step)) for step in range(STEPS)]
    assert per_step == pytest.approx([psi("mlp"), psi("mlp"), small]) and small < psi("mlp") / 2
    assert 1e-6 < apart(run.parameters, truth("mlp").parameters) < 1e-2


@pytest.mark.parametrize("strategy", [lambda: sim.PostLocalSGD(period=2, start=1), lambda: sim.LocalSGD(period=2)])
def test_local_sgd_averages_parameters_when_ours_does(strategy: Callable[[], sim.checking.AnyStrategy]):
    theirs, mine = (
        lab.execute(strategy(), problem("mlp"), ranks=2, steps=4, seed=SEED, timeout=120, engine=by)
        for by in ("native", "program")
    )
    assert apart(theirs.parameters, mine.parameters) <= 1e-9
    assert mean_losses(theirs) == pytest.approx(mean_losses(mine), abs=1e-9)
    averages = [s for s in theirs.spans if s.rank == 1 and s.instruction.startswith("AllReduce")]
    assert fsum(s.bytes for s in averages) == pytest.approx(mine.bytes_sent[1])


def test_an_asynchronous_server_applies_every_gradient_once():
    strategy = sim.ParameterServer(mode="async", servers=2)
    run = lab.execute(strategy, problem("mlp"), ranks=4, steps=STEPS, seed=SEED, timeout=120, engine="native")
    assert len(run.staleness) == 2 * 2 * STEPS and min(run.staleness) >= 0  # servers, workers, steps
    assert len(run.losses) == 2 * STEPS and run.losses[-1].loss < 2.5
    assert run.bytes_sent == pytest.approx([STEPS * psi("mlp")] * 4, rel=1e-2)
    assert apart(run.parameters, problem("mlp").parameters(SEED)) > 1e-4


# ---------------------------------------------------------------- mistakes


def refused(strategy: sim.checking.AnyStrategy, match: str, name: str = "mlp", ranks: int = 2) -> None:
    with pytest.raises(ValueError, match=match):
        lab.execute(strategy, problem(name), ranks=ranks, steps=1, timeout=60, engine="native")


def test_what_pytorch_does_not_have_is_refused():
    refused(sim.Pipeline("naive", 2), "'1f1b', .*got 'naive'")
    refused(sim.ParameterServer(mode="ssp", bound=1), "'sync', 'async'; got 'ssp'")
    refused(sim.DataParallel(overlap=False), "has no overlap; got overlap=False")
    refused(sim.DataParallel(compression=compression.Sign()), "'FP16', 'BF16', 'PowerSGD'; got 'Sign'")
    refused(sim.stack(sim.Pipeline("gpipe", 2), sim.LocalSGD()), "Pipeline [+] DataParallel", ranks=4)
    refused(sim.Pipeline("gpipe", 4), "equal microbatches; got a slice of 25 samples", name="uneven")


@pytest.mark.parametrize("strategy, under", [
    (lambda: sim.Pipeline("gpipe", 2, rule=LARS(0.1)), "ScheduleGPipe"),
    (lambda: sim.Sharded(stage=2, rule=Scaled(SGD(0.1))), "FSDP2 with reshard_after_forward=False"),
])  # fmt: skip
def test_rules_that_the_program_takes_but_a_part_of_the_model_does_not_are_refused(
    strategy: Callable[[], sim.checking.AnyStrategy], under: str
):
    sim.validate(strategy(), 2)
    refused(strategy(), f"under {under} a rank updates a part of the model, where each number follows its own gradient")


def test_unknown_engines_are_named():
    with pytest.raises(ValueError, match=r"'program', 'native'.*got engine='horovod'"):
        lab.execute(sim.Single(), problem("mlp"), ranks=1, engine="horovod")
    assert {"tensorflow", "ray", "mpi", "deepspeed"} <= set(ENGINES)
    assert engine("native").__module__ == "lab.native"


def test_a_loss_that_is_not_finite_is_told():
    with pytest.raises(sim.DivergedError, match=r"a loss is a finite number; rank \d got"):
        diverging = sim.DataParallel(rule=SGD(1e30))
        lab.execute(diverging, problem("mlp"), ranks=2, steps=5, timeout=60, engine="native")


def test_every_choice_has_its_function():
    assert all(len(parts) in (1, 2) for parts in choosing.CHOICES)
    choice = choosing.choose(sim.stack(sim.DataParallel(bucket_bytes=inf)))
    assert choice.function == "replicated.data_parallel" and choice.knobs == {"bucket_bytes": inf}


def test_watching_leaves_pytorch_as_it_was():
    def look(place: lab.launch.Place) -> list[object]:
        import torch.distributed as dist

        from lab.native.watching import watching

        heard: list[str] = []
        before = dist.Work.wait
        with watching(lambda issued: heard.append(issued.kind) or (lambda work: None), lambda work: None):
            dist.all_reduce(torch.ones(2))
        dist.all_reduce(torch.ones(2))
        return [heard, dist.Work.wait is before]

    assert run_ranks(look, 2) == [[["AllReduce"], True]] * 2


def test_where_no_future_tells_of_the_end_a_collective_ends_with_its_phase():
    """As with nccl, whose futures are done when a collective is queued; DDP waits in C++, where nobody hears of it."""

    def train(place: lab.launch.Place, strategy: sim.checking.AnyStrategy, workload: sim.Problem) -> object:
        from lab.native.training import Training

        training = Training.of(place, sim.stack(strategy), workload, STEPS, SEED)
        training.log.tells_ends = False
        return training.observed(choosing.choose(sim.stack(strategy)).train(training))

    for observed in run_ranks(train, 2, sim.DataParallel(bucket_bytes=0), problem("mlp")):
        spans = list(observed.spans)
        begins, ends = ({s.step: s for s in spans if s.instruction == f"{kind} all"} for kind in ("Backward", "Update"))
        reduces = [s for s in spans if s.instruction.startswith("AllReduce")]
        assert len(reduces) > STEPS and sum(s.bytes for s in reduces) == pytest.approx(STEPS * psi("mlp"))
        assert all(begins[s.step].start <= s.start <= s.end for s in reduces)
        # with the backward pass, or at a later look: gloo sets the future a moment before the rest
        assert all(s.end <= ends[s.step + 1].end for s in reduces if s.step + 1 in ends)


# ---------------------------------------------------------------- checkpoints


def test_a_checkpoint_resumes_on_another_number_of_ranks(tmp_path):
    first = checkpoint.train(problem("gpt"), tmp_path, ranks=2, steps=2, seed=SEED)
    assert checkpoint.newest(tmp_path) == 2 and apart(first.parameters, truth("gpt").parameters) > 1e-4
    rest = checkpoint.train(problem("gpt"), tmp_path, ranks=4, steps=STEPS, seed=SEED)
    assert apart(rest.parameters, truth("gpt").parameters) <= 1e-9
    assert first.losses + rest.losses[2:] == pytest.approx(truth("gpt").losses, abs=1e-9)
    with pytest.raises(ValueError, match=f"one after {STEPS} steps, asked were steps=1"):
        checkpoint.train(problem("gpt"), tmp_path, ranks=2, steps=1, seed=SEED)


def test_checkpoints_come_after_whole_steps(tmp_path):
    with pytest.raises(ValueError, match="every is a whole number, at least 1; got every=0"):
        checkpoint.train(problem("mlp"), tmp_path, every=0)


def test_training_survives_the_death_of_a_rank(tmp_path):
    report = elastic.train(problem("mlp"), tmp_path, ranks=2, steps=STEPS, seed=SEED, every=1, crash=(1, 2))
    assert report.began == [0, 2] and report.restarts == 1
    assert apart(report.parameters, truth("mlp").parameters) <= 1e-9


def test_each_elastic_training_reports_its_own_attempts(tmp_path):
    """A second training in the same folder goes on from the checkpoint, and no restart of the first counts for it."""
    elastic.train(problem("mlp"), tmp_path, ranks=2, steps=2, seed=SEED)
    report = elastic.train(problem("mlp"), tmp_path, ranks=2, steps=STEPS, seed=SEED)
    assert report.began == [2] and report.restarts == 0
    assert apart(report.parameters, truth("mlp").parameters) <= 1e-9
    with pytest.raises(ValueError, match=f"one after {STEPS} steps, asked were steps=1"):
        elastic.train(problem("mlp"), tmp_path, ranks=2, steps=1, seed=SEED)


def test_shards_refuse_rules_that_look_at_more_than_one_number(tmp_path):
    layerwise = replace(problem("mlp"), rule=LARS(0.1))
    for train in (checkpoint.train, elastic.train):
        with pytest.raises(ValueError, match=r"under FSDP2 .* each number follows its own gradient alone; got LARS"):
            train(layerwise, tmp_path, ranks=2, steps=1)


def test_a_torchrun_that_does_not_end_is_killed_with_all_that_it_started(tmp_path, monkeypatch):
    """Its ranks have sessions of their own, so that they are no part of its process group."""
    monkeypatch.setattr(elastic, "PATIENCE", 0.5)
    note = tmp_path / "pid"
    stubborn = f"""if True:
        import signal, subprocess, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        rank = subprocess.Popen(["sleep", "60"], start_new_session=True)
        open({str(note)!r}, "w").write(str(rank.pid))
        time.sleep(60)
    """
    with elastic._running([sys.executable, "-c", stubborn]) as process:
        assert wait_for(lambda: note.exists() and note.read_text())
        rank = psutil.Process(int(note.read_text()))
    assert process.poll() is not None
    assert wait_for(lambda: not rank.is_running() or rank.status() == psutil.STATUS_ZOMBIE)


def test_an_impossible_crash_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a rank below 2 and a step below 3; got crash=\\(2, 0\\)"):
        elastic.train(problem("mlp"), tmp_path, ranks=2, steps=3, crash=(2, 0))
