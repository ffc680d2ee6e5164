"""PyTorch's own implementations: they learn what ours learn, and issue what theory says (law 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import fsum, inf, prod

import numpy as np
import pytest
import torch

import lab
import simulator as sim
from lab.engines import ENGINES, engine
from lab.launch import run_ranks
from lab.native import checkpoint, choosing, elastic
from simulator import compression
from simulator.rules import LARS, SGD
from simulator.values import bounds

STEPS, SEED = 3, 7


class Dropping(torch.nn.Module):
    """A block that draws random numbers, and writes over what enters it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Half of it."""
        return torch.nn.functional.dropout(x.tanh_(), 0.5, self.training)


def odd_blocks() -> list[torch.nn.Module]:
    """Blocks as users write them: without parameters, with frozen ones, with chance."""
    frozen = torch.nn.Linear(5, 5)
    frozen.weight.requires_grad_(False)
    return [torch.nn.Flatten(), torch.nn.Linear(6, 5), frozen, Dropping(), torch.nn.Linear(5, 1)]


def odd_data(seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Fourteen samples."""
    inputs = torch.randn(14, 2, 3)
    return inputs, inputs.flatten(1).sin().sum(1, keepdim=True)


PROBLEMS: dict[str, Callable[[], sim.Problem]] = {
    "mlp": lambda: sim.problem("digits-mlp", dtype="float64", hidden=16, batch=24),
    "uneven": lambda: sim.problem("digits-mlp", dtype="float64", hidden=16, batch=25),
    "gpt": lambda: sim.problem("tiny-gpt", dtype="float64", layers=2, hidden=16, heads=4, sequence=12, batch=8),
    "odd": lambda: sim.Problem(odd_blocks, torch.nn.functional.mse_loss, odd_data, dtype="float64"),
}


@cache
def problem(name: str) -> sim.Problem:
    """A small problem in float64."""
    return PROBLEMS[name]()


@cache
def truth(name: str) -> sim.Run:
    """What a single process learns."""
    return sim.simulate(sim.Single(), problem(name), sim.cluster("ideal", ranks=1), steps=STEPS, seed=SEED)


@dataclass(frozen=True)
class Row:
    """A strategy on some ranks, and which of PyTorch's implementations it is."""

    id: str
    strategy: Callable[[], sim.checking.AnyStrategy]
    problem: str
    ranks: int
    says: str
    same_bytes: bool = True
    """Whether ours moves the same bytes; else a test below says what PyTorch does instead."""

    def __str__(self) -> str:
        return f"{self.id}-{self.problem}-on-{self.ranks}"


ROWS = [
    Row("single", lambda: sim.Single(), "gpt", 1, "plain"),
    Row("ddp", lambda: sim.DataParallel(), "uneven", 2, "DistributedDataParallel", same_bytes=False),
    Row("zero1", lambda: sim.Sharded(stage=1), "mlp", 2, "ZeroRedundancyOptimizer", same_bytes=False),
    Row("zero2", lambda: sim.Sharded(stage=2), "mlp", 2, "reshard_after_forward=False"),
    Row("zero3", lambda: sim.Sharded(stage=3), "gpt", 2, "reshard_after_forward=True"),
    Row("tensor", lambda: sim.TensorParallel(), "mlp", 2, "DTensor", same_bytes=False),
    Row("tensor", lambda: sim.TensorParallel(), "gpt", 2, "DTensor", same_bytes=False),
    Row("sequence", lambda: sim.TensorParallel(sequence=True), "gpt", 2, "DTensor", same_bytes=False),
    Row("gpipe", lambda: sim.Pipeline("gpipe", 4), "mlp", 2, "ScheduleGPipe"),
    Row("1f1b", lambda: sim.Pipeline("1f1b", 4), "gpt", 2, "Schedule1F1B"),
    Row("interleaved", lambda: sim.Pipeline("interleaved", 4), "gpt", 2, "ScheduleInterleaved1F1B"),
    Row("zb-h1", lambda: sim.Pipeline("zb-h1", 4), "gpt", 2, "ScheduleInterleavedZeroBubble"),
    Row("zbv", lambda: sim.Pipeline("zbv", 4), "gpt", 2, "ScheduleZBVZeroBubble"),
    Row("rpc", lambda: sim.ParameterServer(mode="async"), "mlp", 2, "RPC"),
    Row("rpc", lambda: sim.ParameterServer(mode="sync"), "uneven", 3, "RPC"),
    Row("ddp", lambda: sim.DataParallel(), "gpt", 4, "DistributedDataParallel", same_bytes=False),
    Row("zero3", lambda: sim.Sharded(stage=3), "uneven", 4, "reshard_after_forward=True", same_bytes=False),
    Row("1f1b", lambda: sim.Pipeline("1f1b", 4), "mlp", 4, "Schedule1F1B"),
    Row("ddp-pp", lambda: sim.stack(sim.Pipeline("1f1b", 4), sim.DataParallel()), "mlp", 4, "Schedule1F1B of",
        same_bytes=False),
    Row("fsdp-tp", lambda: sim.stack(sim.Sharded(stage=3), sim.TensorParallel()), "gpt", 4, "FSDP2", same_bytes=False),
]  # fmt: skip

every = pytest.mark.parametrize("row", ROWS, ids=str)


@cache
def native(row: Row) -> sim.Run:
    """What PyTorch did."""
    return execute(row, "native")


@cache
def ours(row: Row) -> sim.Run:
    """What the program did."""
    return execute(row, "program")


def execute(row: Row, by: str) -> sim.Run:
    return lab.execute(
        row.strategy(), problem(row.problem), ranks=row.ranks, steps=STEPS, seed=SEED, timeout=120, engine=by
    )


def found(identity: str, of: str = "", ranks: int = 2) -> sim.Run:
    """The run of a row above."""
    return next(native(r) for r in ROWS if r.id == identity and r.problem.startswith(of) and r.ranks == ranks)


def apart(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """The largest difference of any parameter."""
    assert a.keys() == b.keys()
    return max(float(np.max(np.abs(a[name] - b[name]))) for name in a)


def mean_losses(run: sim.Run) -> list[float]:
    return [row if isinstance(row, float) else row.loss for row in run.losses]


# ---------------------------------------------------------------- what is learned


@every
def test_pytorch_learns_what_a_single_process_learns(row: Row):
    run, expected = native(row), truth(row.problem)
    assert apart(run.parameters, problem(row.problem).parameters(SEED)) > 1e-4
    assert apart(run.parameters, expected.parameters) <= 1e-9
    assert mean_losses(run) == pytest.approx(expected.losses, abs=1e-9)


@every
def test_a_native_run_says_what_it_is(row: Row):
    run = native(row)
    assert row.says in run.notes["engine"] and run.notes["engine"].startswith("native: ")
    assert (run.clock, run.strategy, run.ranks) == ("wall", str(sim.stack(row.strategy())), row.ranks)
    assert run.steps == STEPS and run.clock_error >= 0 and "replicas" not in run.notes


@every
def test_our_program_learns_the_same_and_moves_the_same_bytes(row: Row):
    run, other = native(row), ours(row)
    assert apart(run.parameters, other.parameters) <= 1e-9
    assert run.workers == other.workers
    if row.same_bytes:
        assert run.bytes_sent == pytest.approx(other.bytes_sent, rel=1e-12)


@every
def test_every_rank_notes_the_phases_of_every_step(row: Row):
    run = native(row)
    for rank in run.workers:
        for step in range(STEPS):
            here = [span for span in run.spans if (span.rank, span.step, span.stream) == (rank, step, "compute")]
            kinds = {span.instruction.split()[0] for span in here}
            assert ({"Forward"} if row.id == "rpc" else {"Forward", "Update"}) <= kinds  # servers update, not workers
            assert any(kind.startswith("Backward") for kind in kinds)
    assert all(0 <= span.start <= span.end for span in run.spans)
    assert 0 < max(run.busy) <= run.makespan


def test_chance_frozen_parameters_and_blocks_in_place():
    """Dropout draws per worker, so the single process is no truth here; our program on the same ranks is."""
    odd = problem("odd")
    theirs, mine = (
        lab.execute(sim.DataParallel(), odd, ranks=2, steps=STEPS, seed=SEED, timeout=120, engine=by)
        for by in ("native", "program")
    )
    assert apart(theirs.parameters, truth("odd").parameters) > 1e-6
    assert apart(theirs.parameters, mine.parameters) <= 1e-12
    assert (theirs.parameters["2.weight"] == odd.parameters(SEED)["2.weight"]).all()


# ---------------------------------------------------------------- what is sent


def sent(run: sim.Run, *kinds: str) -> list[float]:
    """Bytes of some kinds of collective, by rank, per step."""
    return [
        fsum(s.bytes for s in run.spans if s.rank == rank and s.instruction.split()[0] in kinds) / STEPS
        for rank in range(run.ranks)
    ]


def psi(name: str) -> int:
    """Bytes of all parameters."""
    return 8 * problem(name).model().parameters


def padded(name: str, n: int) -> int:
    """Bytes of all parameters, each with as many rows as n ranks can share evenly."""
    shapes = [array.shape for array in problem(name).parameters(SEED).values()]
    return 8 * sum(-(-shape[0] // n) * n * prod(shape[1:]) for shape in shapes)


@pytest.mark.parametrize("of, ranks", [("uneven", 2), ("gpt", 4)])
def test_ddp_moves_two_psi_around_the_ring(of: str, ranks: int):
    run = found("ddp", of, ranks)
    assert sent(run, "AllReduce") == pytest.approx([2 * (ranks - 1) / ranks * psi(of)] * ranks)
    # Once, rank 0 tells the others in which order gradients came; nothing else is sent.
    assert 0 < fsum(sent(run, "Broadcast")) < 300 and sent(run, "AllGather", "ReduceScatter") == [0.0] * ranks


def test_ddp_issues_one_all_reduce_per_bucket():
    small = lab.execute(
        sim.DataParallel(bucket_bytes=0), problem("gpt"), ranks=2, steps=STEPS, seed=SEED, timeout=120, engine="native"
    )
    last = [s for s in small.spans if s.rank == 1 and s.step == STEPS - 1 and s.instruction.startswith("AllReduce")]
    assert len(last) == len(problem("gpt").parameters(SEED)) and {s.stream for s in last} == {"data"}
    assert apart(small.parameters, truth("gpt").parameters) <= 1e-9


def test_zero_1_broadcasts_what_its_owners_updated():
    """2Ψ of gradients as in DDP, and Ψ of parameters: PyTorch's stage 1 moves 3Ψ where 2Ψ would do."""
    run = found("zero1")
    assert sent(run, "AllReduce") == pytest.approx([psi("mlp")] * 2)
    assert fsum(sent(run, "Broadcast")) == pytest.approx(psi("mlp"), rel=0.01)


@pytest.mark.parametrize(
    "identity, of, ranks, times", [("zero2", "mlp", 2, 2), ("zero3", "gpt", 2, 3), ("zero3", "uneven", 4, 3)]
)
def test_fsdp_moves_two_or_three_psi(identity: str, of: str, ranks: int, times: int):
    """C1-C4; where rows do not divide, FSDP2 adds some, on 4 ranks to the ten digits."""
    run, size = found(identity, of, ranks), padded(of, ranks)
    assert run.bytes_sent == pytest.approx([STEPS * times * (ranks - 1) / ranks * size] * ranks)
    assert sent(run, "ReduceScatter") == pytest.approx([(ranks - 1) / ranks * size] * ranks)
    assert (size == psi(of)) == (ranks == 2)


def test_tensor_parallel_adds_up_activations_four_times_per_layer():
    activations = 8 * 12 * 16 * 8  # samples, tokens, features, bytes
    assert found("tensor", "gpt").bytes_sent == pytest.approx([STEPS * 4 * 2 * 0.5 * 2 * activations] * 2)


def test_sequence_parallel_gathers_and_scatters_instead():
    """The same bytes, two all-gathers at the ends, and what PyTorch reduces anew each time Adam reads it."""
    activations, norms = 8 * 12 * 16 * 8, 8 * 5 * 2 * 16
    run = found("sequence")
    assert sent(run, "ReduceScatter") == pytest.approx([0.5 * 8 * activations] * 2)
    assert sent(run, "AllGather") == pytest.approx([0.5 * (8 + 2) * activations] * 2)
    assert sent(run, "AllReduce")[0] >= norms and sent(run, "AllReduce")[0] % norms == 0


def test_replicated_stages_average_their_own_gradients():
    run = found("ddp-pp", ranks=4)
    blocks = problem("mlp").model().blocks
    stages = [8 * sum(block.parameters for block in blocks[slice(*bounds(4, stage, 2))]) for stage in range(2)]
    assert sent(run, "AllReduce") == pytest.approx([stages[0], stages[0], stages[1], stages[1]])
    assert sent(run, "Send") == pytest.approx([12 * 16 * 8] * 4)
    assert {s.stream for s in run.spans if s.instruction.startswith("AllReduce")} == {"data"}


def test_fsdp_over_tensor_parallel_shards_over_one_axis_and_splits_over_the_other():
    run = found("fsdp-tp", ranks=4)
    streams = {(s.instruction.split()[0], s.stream) for s in run.spans if s.stream != "compute"}
    assert streams == {("AllGather", "data"), ("ReduceScatter", "data"), ("AllReduce", "tensor")}
    assert sent(run, "AllReduce") == pytest.approx([4 * 2 * 0.5 * 2 * (4 * 12 * 16 * 8)] * 4)


def test_pytorchs_schedules_hold_as_many_microbatches_as_theory_says():
    assert found("gpipe").in_flight == [4, 4]  # B4
    assert found("1f1b", "mlp", 4).in_flight == [4, 3, 2, 1]  # B5: min(m, p - s)


def test_zero_bubble_splits_the_backward_pass():
    kinds = {s.instruction.split()[0] for s in found("zb-h1").spans if s.rank == 0}
    assert {"BackwardInput", "BackwardWeight"} <= kinds


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
    refused(sim.Sharded(stage=2, rule=LARS(0.1)), "a rule|follows its own gradient")


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


# ---------------------------------------------------------------- checkpoints


def test_a_checkpoint_resumes_on_another_number_of_ranks(tmp_path):
    first = checkpoint.train(problem("gpt"), tmp_path, ranks=2, steps=2, seed=SEED)
    assert checkpoint.newest(tmp_path) == 2 and apart(first.parameters, truth("gpt").parameters) > 1e-4
    rest = checkpoint.train(problem("gpt"), tmp_path, ranks=4, steps=STEPS, seed=SEED)
    assert apart(rest.parameters, truth("gpt").parameters) <= 1e-9
    assert first.losses + rest.losses[2:] == pytest.approx(truth("gpt").losses, abs=1e-9)
    with pytest.raises(ValueError, match=f"one after {STEPS} steps, asked were steps=1"):
        checkpoint.train(problem("gpt"), tmp_path, ranks=2, steps=1, seed=SEED)


def test_training_survives_the_death_of_a_rank(tmp_path):
    report = elastic.train(problem("mlp"), tmp_path, ranks=2, steps=STEPS, seed=SEED, every=1, crash=(1, 2))
    assert report.began == [0, 2] and report.restarts == 1
    assert apart(report.parameters, truth("mlp").parameters) <= 1e-9


def test_an_impossible_crash_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a rank below 2 and a step below 3; got crash=\\(2, 0\\)"):
        elastic.train(problem("mlp"), tmp_path, ranks=2, steps=3, crash=(2, 0))
