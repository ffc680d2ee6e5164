"""Rows measured on slow networks: every rank in a network namespace of its own, which sends no faster than a rate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path

import cloudpickle

from lab.machine import is_idle
from lab.prediction import Here
from lab.profiling import Profile, profile

from .cells import Cell
from .host import Task
from .loopback import foretell, row_of
from .namespaces import INTERFACE, ForbiddenError, address, hosts
from .observing import Observation, Watch, steady
from .rows import Row

RATES = {"1gbit": "1gbit", "100mbit": "100mbit"}
"""Networks by name, and what tc calls their rate."""
HOME = Path(__file__).resolve().parents[3]


def forbidden() -> str:
    """Why this machine does not let us make networks; nothing if it does."""
    try:
        with hosts(1, "1gbit"):
            return ""
    except ForbiddenError as reason:
        return str(reason)


def measure(network: str, cells: Sequence[Cell], runs: int = 2) -> Iterator[Row]:
    """A row for each cell; where it cannot be run, the reason is its remark."""
    for ranks, group in groupby(cells, key=lambda cell: cell.ranks):
        several = list(group)
        for cell in several:
            if cell.refused:
                yield _without(network, cell, cell.refused)
        yield from _together(network, [cell for cell in several if not cell.refused], ranks, runs)


def _together(network: str, cells: list[Cell], ranks: int, runs: int) -> Iterator[Row]:
    """Cells with one number of ranks. When one ends the ranks, fresh ones go on with the next."""
    profiles = {cell: profile(cell.strategy, cell.workload, ranks) for cell in cells}
    while cells:
        done = 0
        with tempfile.TemporaryDirectory() as folder, hosts(ranks, RATES[network]) as names:
            task = Task(tuple(cells), ranks, min(runs, 2), Path(folder) / "machine")
            with started(task, Path(folder), names) as processes:
                for row in _rows(network, cells, processes[0], task, profiles):
                    done += 1
                    yield row
            errors = [(Path(folder) / f"errors-{rank}").read_text() for rank in range(ranks)]
        if done < len(cells):
            last = next((text.strip().splitlines()[-1] for text in errors if text.strip()), "the ranks ended")
            yield _without(network, cells[done], last)
        cells = cells[done + 1 :]


def _rows(
    network: str, cells: list[Cell], first: subprocess.Popen[str], task: Task, profiles: dict[Cell, Profile]
) -> Iterator[Row]:
    assert first.stdout is not None
    watch = Watch()
    for cell, line in zip(cells, first.stdout, strict=False):
        found, here = json.loads(line), _machine(task)
        observed = Observation(found["seconds"], found["spread"], found["stated"], watch.stop())
        predicted = steady(foretell(cell, here, profiles[cell]))
        yield row_of(network, cell, is_idle(here.busy), predicted, observed, found["counted"])
        watch = Watch()


def _machine(task: Task) -> Here:
    assert task.machine is not None
    here: Here = cloudpickle.loads(task.machine.read_bytes())
    return here


@contextmanager
def started(task: Task, folder: Path, names: list[str]) -> Iterator[list[subprocess.Popen[str]]]:
    """One process on each host; none is left at the end."""
    job = folder / "job"
    job.write_bytes(cloudpickle.dumps(task))
    processes: list[subprocess.Popen[str]] = []
    try:
        for rank, name in enumerate(names):
            processes.append(_start(job, folder, name, rank, len(names)))
        yield processes
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                process.kill()
            process.communicate()


def _start(job: Path, folder: Path, name: str, rank: int, ranks: int) -> subprocess.Popen[str]:
    meeting = {
        "RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": address(0), "MASTER_PORT": "29500",
        "GLOO_SOCKET_IFNAME": INTERFACE, "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HOME), *filter(None, sys.path)]),
    }  # fmt: skip
    with (folder / f"errors-{rank}").open("w") as errors:
        return subprocess.Popen(  # ip turns into the command, so this is the rank's own process
            ["ip", "netns", "exec", name, sys.executable, "-m", "lab.truth.here.host", str(job)],
            env={**os.environ, **meeting}, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip


def _without(network: str, cell: Cell, remark: str) -> Row:
    return Row(network, cell.problem, cell.ranks, cell.name, str(cell.strategy), remark=remark)
