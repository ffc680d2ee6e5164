"""One rank on a host of its own: ``python -m lab.truth.here.host FILE``, in the environment that torchrun would make.

It calibrates the network, measures cell after cell, and rank 0 writes a line of JSON for each.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import cloudpickle

from lab.prediction import measure_here
from lab.running import execute
from simulator.run import Run

from .cells import STEPS, Cell
from .namespaces import sent
from .observing import steady

FEW = 4
"""Steps of a short run: what a long one sends more was sent by its further steps."""


@dataclass(frozen=True)
class Task:
    """What the ranks are to do: calibrate into a file, if one is named, then measure each cell ``runs`` times."""

    cells: tuple[Cell, ...]
    ranks: int
    runs: int
    machine: Path | None = None


def main(path: Path) -> None:
    """Do what the file says. Every rank runs this."""
    task: Task = cloudpickle.loads(path.read_bytes())
    here = None if task.machine is None else measure_here(task.ranks)
    first = os.environ["RANK"] == "0"
    if first and task.machine is not None:
        task.machine.write_bytes(cloudpickle.dumps(here))
    for cell in task.cells:
        line = observe(cell, task.runs)
        if first:
            print(json.dumps(line), flush=True)


def observe(cell: Cell, runs: int) -> dict[str, float]:
    """Seconds per step, how much the runs differ, and bytes per step: stated, and counted by the kernel."""
    import torch.distributed as dist

    (short, few), *long = [_counted(cell, steps) for steps in (FEW, *[STEPS] * runs)]
    seconds = [steady(run) for run, _ in long]
    stated = [sum(run.bytes_sent) - sum(short.bytes_sent) for run, _ in long]
    counted: list[list[float]] = [[]] * cell.ranks
    dist.all_gather_object(counted, [many - few for _, many in long])
    further = runs * (STEPS - FEW)
    return {
        "seconds": median(seconds),
        "spread": max(seconds) / min(seconds) - 1,
        "stated": sum(stated) / further,
        "counted": sum(map(sum, counted)) / further,
    }


def _counted(cell: Cell, steps: int) -> tuple[Run, float]:
    before = _drained()
    run = execute(cell.strategy, cell.workload, cell.ranks, steps, progress=False)
    return run, _drained() - before


def _drained() -> float:
    """Bytes sent so far. Who passes a second barrier knows that others have had what was queued before the first."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()
        dist.barrier()
    return sent()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
