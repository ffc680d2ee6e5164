"""One rank that mpirun has started: ``python -m lab.extras.mpi_rank <folder> <ranks> <process to outlive>``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .relay import Folder, end_with


def main() -> None:
    """Join the others, work, leave what was observed."""
    end_with(int(sys.argv[3]))
    import torch
    from mpi4py import MPI

    torch.set_num_threads(1)
    world, ranks = MPI.COMM_WORLD, int(sys.argv[2])
    if world.size != ranks:
        raise SystemExit(
            f"mpirun started {ranks} ranks, but mpi4py sees {world.size}: they belong to different MPI installations;"
            f" it uses {MPI.Get_library_version().splitlines()[0]}"
        )
    try:
        Folder(Path(sys.argv[1]), ranks).work(world.rank)
    except Exception:  # left in the folder; the others must not wait for this rank
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main()
