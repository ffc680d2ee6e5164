"""Real ranks that do as they are told: results, warm processes, progress, output; and what is refused."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest
import torch
from common.launching import children, pids, script, wait_for

from lab.blame import Gravity, Symptom, error_of, with_source
from lab.board import Board, Status
from lab.launch import Place, StoppedError, run_ranks, start_ranks
from lab.place import INSIDE
from lab.pool import POOL, Pool

pytest_plugins = ["common.leaks"]
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # however pytest has imported this file


# ---------------------------------------------------------------- when all goes well


def test_results_come_in_rank_order_from_a_usable_process_group():
    def total(place: Place, factor: float):
        tensor = torch.tensor([float(place.rank + 1)])
        torch.distributed.all_reduce(tensor)
        return place.rank, place.ranks, place.device[:3], factor * tensor.item(), torch.get_num_threads()

    results = run_ranks(total, 2, 10.0)
    assert [r[:2] for r in results] == [(0, 2), (1, 2)]
    assert {r[2] for r in results} == {"cud" if torch.cuda.device_count() >= 2 else "cpu"}
    assert [r[3:] for r in results] == [(30.0, 1), (30.0, 1)]


def test_a_second_run_uses_the_same_processes_and_is_fast(no_leaks):
    first = run_ranks(pids, 2)
    begin = time.perf_counter()
    assert run_ranks(pids, 2) == first
    seconds = time.perf_counter() - begin
    print(f"warm run on 2 ranks: {seconds * 1e3:.1f} ms")
    assert seconds < 1.0  # a fresh start takes longer; the figure itself is printed only


def test_two_runs_at_once_get_different_ranks(no_leaks):
    def meet(place: Place, mine: str, other: str):
        Path(mine).touch()
        while not Path(other).exists():
            time.sleep(0.01)
        return os.getpid()

    with tempfile.TemporaryDirectory() as folder:
        a, b = f"{folder}/a", f"{folder}/b"
        runs = [start_ranks(meet, 1, a, b), start_ranks(meet, 1, b, a)]
        assert len({run.result()[0] for run in runs}) == 2


def test_ranks_that_hold_many_groups_are_replaced(no_leaks):
    """Those of streams and axes are not among torch's own; each holds sockets for as long as its process lives."""

    def gather(place: Place, first: int, count: int) -> int:
        from lab.groups import group_of

        for number in range(first, first + count):
            group_of(f"stream {number}", (0, 1), place.rank, place.device)
        return os.getpid()

    few = run_ranks(gather, 2, 0, 40)
    assert run_ranks(gather, 2, 0, 40) == few == run_ranks(gather, 2, 40, 40)
    assert set(run_ranks(pids, 2)).isdisjoint(few)


def test_few_idle_gangs_are_kept():
    ended: list[str] = []

    def gang(name: str, ranks: int) -> Any:
        return SimpleNamespace(
            name=name, workers=[None] * ranks, spent=False, rest=lambda: None, end=lambda: ended.append(name)
        )

    pool = Pool(each=1, total=2)
    for name, ranks in (("a", 1), ("b", 2), ("c", 2), ("d", 3)):
        pool.give_back(gang(name, ranks))
    assert ended == ["b", "a"]
    pool.clear()
    assert ended == ["b", "a", "c", "d"]


def test_an_idle_rank_that_was_killed_or_stopped_is_replaced(no_leaks):
    (first,) = run_ranks(pids, 1)
    os.kill(first, signal.SIGKILL)
    assert wait_for(lambda: POOL.idle[0].workers[0].ended() is not None)
    (second,) = run_ranks(pids, 1)
    os.kill(second, signal.SIGSTOP)
    time.sleep(2.2)
    (third,) = run_ranks(pids, 1)
    assert len({first, second, third}) == 3


def test_changed_source_is_noticed(no_leaks, tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("sources")
    (folder / "recipe_for_ranks.py").write_text("import os\ndef answer(place): return 1, os.getpid()\n")
    monkeypatch.syspath_prepend(folder)
    from recipe_for_ranks import answer

    ((one, first),) = run_ranks(answer, 1)
    assert run_ranks(answer, 1) == [(one, first)]
    (folder / "recipe_for_ranks.py").write_text("import os\ndef answer(place): return 22, os.getpid()\n")
    ((two, second),) = run_ranks(answer, 1)
    assert (one, two) == (1, 22) and first != second


def test_output_is_shown_in_rank_order(capfd):
    def talk(place: Place):
        time.sleep(0.1 * (1 - place.rank))
        print("hello")
        os.system("echo from C")
        print("careful", file=sys.stderr)

    run_ranks(talk, 2)
    lines = ["hello", "from C", "careful"]
    assert capfd.readouterr().out.splitlines() == [f"[rank {rank}] {line}" for rank in (0, 1) for line in lines]
    run_ranks(talk, 2, show_output=False)
    run_ranks(pids, 2)
    assert capfd.readouterr().out == ""


def test_large_arguments_and_results():
    def double(place: Place, data: bytes):
        return data + data

    (result,) = run_ranks(double, 1, b"x" * 20_000_000)
    assert len(result) == 40_000_000


def test_progress_is_the_least_over_ranks_and_stop_ends_the_ranks(no_leaks):
    def crawl(place: Place):
        place.board.progress(0.5 if place.rank else 0.25)
        time.sleep(60)

    heard: list[float] = []
    handle = start_ranks(crawl, 2, on_progress=heard.append)
    seen = wait_for(lambda: handle.progress == 0.25, 30) and not handle.done
    handle.stop()
    handle.stop()
    assert seen and handle.done and children() == set() and 0.25 in heard
    with pytest.raises(StoppedError, match="stopped before it ended"):
        handle.result()


def test_stopping_a_finished_run_keeps_its_results():
    handle = start_ranks(pids, 1)
    results = handle.result()
    handle.stop()
    assert handle.result() == results and handle.progress == 1.0


def test_one_rank_may_wait_for_as_long_as_another_makes_progress():
    def work(place: Place):
        import torch.distributed as dist

        for step in range(20 * (1 - place.rank)):
            place.board.note(step, "Forward 0 mb0")
            time.sleep(0.1)
        place.board.note(0, "Barrier", waiting=True)
        dist.barrier()

    assert run_ranks(work, 2, timeout=1.0) == [None, None]


def test_functions_and_classes_of_main_travel_both_ways(tmp_path):
    done = script(
        tmp_path,
        """
        from dataclasses import dataclass
        from lab.launch import run_ranks

        @dataclass
        class Point:
            x: int

        def shift(place, point):
            return Point(point.x + place.rank)

        results = run_ranks(shift, 2, Point(5))
        assert all(isinstance(result, Point) for result in results)
        print(*results)
        """,
    )
    out, _ = done.communicate(timeout=60)
    assert out.strip() == "Point(x=5) Point(x=6)" and done.returncode == 0


# ---------------------------------------------------------------- rules


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_everything_listens_on_loopback_only(no_leaks):
    processes = [os.getpid(), *run_ranks(pids, 2)]
    addresses = {address for pid in processes for address in listening(pid)}
    assert addresses  # the store at least
    assert addresses <= {"0100007F", "0" * 24 + "01000000", "0" * 16 + "FFFF00000100007F"}


def listening(pid: int) -> list[str]:
    """Addresses, in the kernel's hexadecimal, on which a process listens."""
    inodes = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    rows = [row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()]
    return [row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]


@pytest.mark.parametrize(
    ("ranks", "timeout", "text"),
    [
        (0, 1.0, "ranks=0"),
        (True, 1.0, "ranks=True"),
        (1.5, 1.0, "ranks=1.5"),
        (1, 0, "timeout=0"),
        (1, -1, "timeout=-1"),
    ],
)
def test_bad_arguments(ranks, timeout, text):
    with pytest.raises(ValueError, match=text):
        run_ranks(pids, ranks, timeout=timeout)


def test_ranks_do_not_start_ranks(monkeypatch):
    monkeypatch.setenv(INSIDE, "1")
    with pytest.raises(RuntimeError, match="inside a rank"):
        run_ranks(pids, 1)


def test_a_board_says_what_was_noted_and_survives_long_texts():
    board = Board.private()
    assert board.status().instruction == "none yet"
    board.note(3, "é" * 200, waiting=True)
    board.progress(0.5)
    status = board.status()
    assert (status.step, status.waiting, status.fraction, status.notes) == (3, True, 0.5, 1)
    assert status.instruction == "é" * 80


def test_the_gravest_symptom_is_blamed():
    at = Status(1, 0.0, 1, 2, False, "Forward 0 mb0")
    waiting = Status(1, 0.0, 1, 1, True, "Barrier")
    graver = [
        Symptom(0, Gravity.DEAD, "", at),
        Symptom(1, Gravity.ABORTED, "", at),
        Symptom(2, Gravity.SILENT, "", at),
        Symptom(3, Gravity.RAISED, "", at),
        Symptom(4, Gravity.STUCK, "", at),
        Symptom(5, Gravity.STUCK, "", waiting),
        Symptom(6, Gravity.CONSEQUENCE, "", waiting),
    ]
    mixed = graver[3:] + graver[:3]
    assert sorted(mixed, key=lambda symptom: symptom.order) == graver
    assert error_of(graver[0]).rank == 0


def test_a_traceback_shows_lines_that_only_the_parent_knows():
    import linecache

    linecache.cache["<cell 1>"] = (9, None, ["one\n", "two()\n"], "<cell 1>")
    text = 'Traceback:\n  File "<cell 1>", line 2, in f\n  File "b.py", line 1, in g\n    known()\n'
    assert 'in f\n    two()\n  File "b.py"' in with_source(text)
