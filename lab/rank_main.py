"""A worker process: one rank, which joins its peers and then does one job after another.

Started by ``lab.gang`` as ``python -m lab.rank_main <channel> <board> <rank> <ranks> <parent>``: two inherited file
descriptors, two counts and the process id of the parent.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import mmap
import os
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from datetime import timedelta
from queue import SimpleQueue
from typing import NoReturn

import cloudpickle

from .board import Board
from .channel import Channel, Frame
from .place import Place, backend_of, claimed_device
from .sources import Sources

BEAT = 0.2
"""Seconds between two signs of life."""
_FOR_EVER = timedelta(hours=24)  # the parent decides how long is too long: who waits may do so while others go on
_MOST_GROUPS = 64  # a process that holds more process groups than this is replaced


def main() -> None:
    """Join, then work until the parent is gone."""
    started = time.time_ns()
    channel_fd, board_fd, rank, ranks, parent = map(int, sys.argv[1:6])
    for fd in (channel_fd, board_fd):
        os.set_inheritable(fd, False)
    with suppress(AttributeError, RuntimeError):
        faulthandler.register(signal.SIGUSR1, all_threads=False)
    board, channel = Board(mmap.mmap(board_fd, 0), rank), Channel(socket.socket(fileno=channel_fd))
    inbox: SimpleQueue[Frame] = SimpleQueue()
    threading.Thread(target=_live, args=(board, parent), name="life", daemon=True).start()
    threading.Thread(target=_listen, args=(channel, inbox), name="listener", daemon=True).start()
    board.note(0, "loading torch")
    place = _join(rank, ranks, board, inbox)
    sources = Sources()
    channel.send(Frame("joined", {"sources": sources.news(started)}))
    while True:
        _answer(channel, inbox.get(), place, sources)


def _join(rank: int, ranks: int, board: Board, inbox: SimpleQueue[Frame]) -> Place:
    """Load torch and enter the process group; gloo, and nccl too where every rank has a GPU of its own."""
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    device = claimed_device(rank, ranks)
    port = inbox.get().facts["port"]
    board.note(0, "joining the others", waiting=True)
    store = distributed.TCPStore("127.0.0.1", port, is_master=False, timeout=_FOR_EVER)
    backend = backend_of(device)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=_FOR_EVER)
    return Place(rank, ranks, device, board)


def _answer(channel: Channel, job: Frame, place: Place, sources: Sources) -> None:
    """Do one job and tell the parent what came of it."""
    began = time.time_ns()
    kind, facts, body = "result", {}, b""
    try:
        body = _work(job, place)
    except BaseException as error:
        kind, facts, body = "raised", {"report": _report(error)}, _pickled(error)
    sys.stdout.flush()
    ctypes.CDLL(None).fflush(None)  # what C libraries printed
    channel.send(Frame(kind, {**facts, "sources": sources.news(began), "spent": _spent(place.ranks)}, body))


def _work(job: Frame, place: Place) -> bytes:
    """The pickled result. Folder and module path are the parent's; leftovers of earlier jobs are set right."""
    import torch

    sys.path[:] = job.facts["path"]
    os.chdir(job.facts["folder"])
    importlib.invalidate_caches()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    place.enter()
    function, arguments = cloudpickle.loads(job.body)
    return cloudpickle.dumps(function(place, *arguments))


def _report(error: BaseException) -> str:
    """What happened, with the traceback from the user's function on."""
    trace = error.__traceback__
    for _ in range(2):  # the frames of _answer and _work
        trace = trace.tb_next if trace is not None and trace.tb_next is not None else trace
    text = "".join(traceback.format_exception(type(error), error, trace))
    if isinstance(error, SystemExit):
        return f"exited by sys.exit({error.code!r})\n{text}"
    return f"raised {type(error).__name__}: {error}\n{text}"


def _pickled(error: BaseException) -> bytes:
    """A ValueError as it is, since it says by itself what is wrong; nothing of other errors."""
    with suppress(Exception):
        if isinstance(error, ValueError):
            return cloudpickle.dumps(error)
    return b""


def _spent(ranks: int) -> bool:
    """Whether this process should not take another job: its group is gone, or groups have piled up."""
    from torch.distributed import distributed_c10d as c10d

    from .groups import held_groups  # here, for it loads torch

    held = len(c10d._world.pg_map) + held_groups()
    return not c10d.is_initialized() or c10d.get_world_size() != ranks or held > _MOST_GROUPS


def _live(board: Board, parent: int) -> None:
    """Give signs of life for as long as the parent lives."""
    while os.getppid() == parent:
        board.beat()
        time.sleep(BEAT)
    _die()


def _listen(channel: Channel, inbox: SimpleQueue[Frame]) -> None:
    """Pass on what the parent says. In a thread, so that its end is noticed while gloo blocks the main one."""
    with suppress(EOFError):
        while True:
            for frame in channel.read():
                inbox.put(frame)
    _die()


def _die() -> NoReturn:
    """End at once, with whatever this process started."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
