"""Running a function on ranks that torchrun (or anything that sets its environment) has already started.

    torchrun --nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-endpoint host:29500 script.py

Every rank runs the whole script; ``run_here`` calls the function in each and gives every rank all results.
"""

from __future__ import annotations

import atexit
import os
import pickle
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import cloudpickle

from simulator.errors import RankError

from .board import Board
from .place import Place, backend_of, claimed_device, inside_rank

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def inside() -> bool:
    """Whether torchrun, or a launcher that speaks like it, started this process."""
    started = "TORCHELASTIC_RUN_ID" in os.environ or all(name in os.environ for name in _NEEDED)
    return started and not inside_rank()


def hosts() -> int:
    """How many machines take part: torchrun has an agent on each."""
    return int(os.environ.get("GROUP_WORLD_SIZE", "1")) if inside() else 1


def run_here(function: Callable[..., Any], ranks: int, *arguments: Any, timeout: float = 30.0) -> list[Any]:
    """Call ``function(place, *arguments)`` on this rank, one of ``ranks``; all results in rank order, on every rank.

    Initialises the default process group from the environment if there is none, and leaves it to the process's end.
    ``timeout`` [s] is how long a collective waits for the others.

    Raises ValueError when ``ranks`` is not the number of processes that torchrun started, or the function raised one;
    RankError when the others could not be reached, or the function raised anything else: torchrun then ends the others.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks != world:
        raise ValueError(
            f"under torchrun, ranks is the number of processes it started, here {world}; got ranks={ranks}"
        )
    place = _place(timeout)
    return _everybody(_call(function, place, arguments), ranks)


def _place(timeout: float) -> Place:
    import torch
    from torch import distributed

    from .groups import wait_at_most

    device = claimed_device(int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    torch.set_num_threads(1)
    if distributed.is_initialized():
        wait_at_most(timeout)
    else:
        _join(backend_of(device), timeout)
        atexit.register(_leave)
    return Place(distributed.get_rank(), distributed.get_world_size(), device, Board.private(), hosts())


def _join(backend: str, timeout: float) -> None:
    """Enter the process group, or say who could not be reached."""
    from torch import distributed

    try:
        distributed.init_process_group(backend, init_method="env://", timeout=timedelta(seconds=timeout))
    except distributed.DistError as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise RankError(
            int(os.environ.get("RANK", "0")), 0, "joining the others",
            f"could not join the others at {where} within {timeout:g} s: is rank 0 running, are all ranks started, and"
            f" do MASTER_ADDR and MASTER_PORT name it? ({str(error).splitlines()[0]})",
        ) from None  # fmt: skip


def _leave() -> None:
    """At the very end: an interpreter that goes while gloo's threads live aborts now and then."""
    from torch import distributed

    from .groups import forget_groups

    forget_groups()
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _call(function: Callable[..., Any], place: Place, arguments: tuple[Any, ...]) -> Any:
    """The result; an error also says where the rank was."""
    try:
        return function(place, *arguments)
    except Exception as error:
        status = place.board.status()
        if isinstance(error, ValueError):
            error.add_note(f"(rank {place.rank}, step {status.step}, last instruction: {status.instruction})")
            raise
        report = f"raised {type(error).__name__}: {error}\n{traceback.format_exc()}"
        raise RankError(place.rank, status.step, status.instruction, report) from error


def _everybody(result: Any, ranks: int) -> list[Any]:
    from torch import distributed

    gathered: list[Any] = [None] * ranks
    distributed.all_gather_object(gathered, cloudpickle.dumps(result))
    return [pickle.loads(body) for body in gathered]
