"""Ranks that raise, die, hang or never come: the error says which and why, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest
from common.launching import children, pids, script, wait_for

from lab import gang as gang_module
from lab import watch as watch_module
from lab.launch import Place, run_ranks
from simulator.errors import DivergedError, RankError

pytest_plugins = ["common.leaks"]
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # however pytest has imported this file


def alive(pid: int) -> bool:
    states = subprocess.run(["ps", "-p", str(pid), "-o", "state="], capture_output=True, text=True).stdout
    return bool(states.strip()) and not states.strip().startswith("Z")


def fail(function, *arguments, ranks: int = 2, timeout: float = 3.0, within: float | None = None) -> RankError:
    run_ranks(pids, ranks)  # so that the time below has no start in it
    begin = time.monotonic()
    with pytest.raises(RankError) as caught:
        run_ranks(function, ranks, *arguments, timeout=timeout)
    assert time.monotonic() - begin < (within or timeout)
    return caught.value


def step_and_wait(place: Place, what) -> None:
    """Rank 1 notes a step and does ``what``; the others wait for it in gloo."""
    import torch

    place.board.note(3, "Forward 2 mb1")
    if place.rank == 1:
        what()
    place.board.note(3, "AllReduce Grads(2) over world", waiting=True)
    torch.distributed.all_reduce(torch.ones(1))


def test_a_rank_that_raises(no_leaks, capsys):
    def broken():
        print("so far so good")
        raise KeyError("no such thing")

    error = fail(step_and_wait, broken)
    assert (error.rank, error.step, error.instruction) == (1, 3, "Forward 2 mb1")
    assert "KeyError: 'no such thing'" in str(error) and "in broken" in str(error)
    assert "[rank 1] so far so good" in capsys.readouterr().out


def test_a_value_error_arrives_as_itself(no_leaks):
    def diverge():
        raise DivergedError("the loss is nan")

    with pytest.raises(DivergedError) as caught:
        run_ranks(step_and_wait, 2, diverge)
    assert str(caught.value) == "the loss is nan"
    assert caught.value.__notes__ == ["(rank 1, step 3, last instruction: Forward 2 mb1)"]
    assert "in diverge" in str(caught.value.__cause__)


def test_a_rank_that_is_killed(no_leaks):
    error = fail(step_and_wait, lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert (error.rank, error.step, error.instruction) == (1, 3, "Forward 2 mb1")
    assert "was killed by SIGKILL (-9)" in str(error)


def test_a_rank_that_exits(no_leaks):
    error = fail(step_and_wait, lambda: os._exit(7))
    assert error.rank == 1 and "exited with code 7" in str(error)
    error = fail(step_and_wait, lambda: sys.exit("enough"))
    assert error.rank == 1 and "exited by sys.exit('enough')" in str(error)


def test_a_rank_that_is_stopped(no_leaks):
    error = fail(step_and_wait, lambda: os.kill(os.getpid(), signal.SIGSTOP), timeout=2.0, within=4.0)
    assert (error.rank, error.step) == (1, 3) and "it was probably stopped" in str(error)


def test_a_rank_that_hangs(no_leaks):
    error = fail(step_and_wait, lambda: time.sleep(60), timeout=2.0, within=4.0)
    assert (error.rank, error.instruction) == (1, "Forward 2 mb1")
    assert "made no progress for 2 s" in str(error)
    assert "in step_and_wait" in str(error)  # its stack
    assert "rank 0: step 3, AllReduce Grads(2) over world, waiting in communication" in str(error)


def test_of_ranks_that_all_wait_the_one_least_far_is_named(no_leaks):
    def wait(place: Place):
        import torch

        place.board.note(5 - place.rank, "Recv Act(1, mb 0) from world 0", waiting=True)
        torch.distributed.recv(torch.ones(1), src=1 - place.rank)

    error = fail(wait, timeout=2.0, within=4.0)
    assert (error.rank, error.step) == (1, 4)


def test_a_rank_that_never_arrives(no_leaks, monkeypatch):
    start = gang_module.command
    monkeypatch.setattr(watch_module, "STARTUP", 3.0)
    monkeypatch.setattr(gang_module, "command", lambda n: ["sleep", "60"] if n[2] == 1 else start(n))
    with pytest.raises(RankError, match="never arrived") as caught:
        run_ranks(pids, 2, timeout=2.0)
    assert caught.value.rank == 1


def test_a_rank_that_fails_to_start(no_leaks, monkeypatch):
    monkeypatch.setattr(gang_module, "command", lambda _: [sys.executable, "-c", "import no_such_module"])
    with pytest.raises(RankError, match="exited with code 1") as caught:
        run_ranks(pids, 1)
    assert "No module named 'no_such_module'" in str(caught.value)


def test_what_a_rank_started_dies_with_it(no_leaks):
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder, "pid")

        def start_something():
            note.write_text(str(subprocess.Popen(["sleep", "60"]).pid))
            raise RuntimeError("boom")

        fail(step_and_wait, start_something)
        assert wait_for(lambda: not alive(int(note.read_text())))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell that starts the tests in the background has them, and what they start, ignore interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_ends_the_ranks(no_leaks, interruptible):
    run_ranks(pids, 2)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        run_ranks(lambda place: time.sleep(60), 2)
    assert children() == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_when_the_parent_ends_its_ranks_end(tmp_path, interruptible, number):
    parent = script(
        tmp_path,
        """
        import os, signal
        from lab.launch import run_ranks

        def block(place, note):
            import torch
            print(os.getpid(), file=open(f"{note}.{place.rank}", "w"), flush=True)
            if place.rank == 2:
                os.kill(os.getpid(), signal.SIGSTOP)
            torch.distributed.recv(torch.ones(1), src=1 - place.rank)

        run_ranks(block, 3, __file__)
        """,
    )
    notes = [tmp_path / f"script.py.{rank}" for rank in range(3)]
    try:
        assert wait_for(lambda: all(note.exists() and note.read_text() for note in notes), 60)
        time.sleep(0.2)
        ranks = [int(note.read_text()) for note in notes]
        assert all(map(alive, ranks)) and children(parent.pid) == set(ranks)
        parent.send_signal(number)
        parent.communicate(timeout=20)
        assert wait_for(lambda: not any(map(alive, ranks)))
    finally:
        parent.kill()
        parent.wait()


def test_a_script_ends_while_a_run_is_under_way(tmp_path):
    done = script(
        tmp_path,
        """
        import os, time
        from lab.launch import run_ranks, start_ranks
        print(*run_ranks(lambda place: os.getpid(), 1))
        start_ranks(lambda place: time.sleep(60), 1)
        """,
    )
    out, _ = done.communicate(timeout=60)
    assert done.returncode == 0 and not alive(int(out))
