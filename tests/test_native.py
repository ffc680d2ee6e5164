"""PyTorch's own implementations: they learn what ours learn, and issue what theory says (law 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import fsum, prod

import pytest
from common.natively import SEED, STEPS, mean_losses, problem, psi, sent, truth
from common.runs import apart

import lab
import simulator as sim
from simulator.values import bounds


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
    """C1-C4, and G8: two where parameters stay after the forward pass, as those of Llama 3 did.

    Where rows do not divide, FSDP2 adds some, on 4 ranks to the ten digits.
    """
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
