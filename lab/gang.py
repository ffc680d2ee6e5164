"""A gang: N worker processes with an initialised process group, as their parent sees them."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from . import board
from .channel import Channel
from .place import INSIDE
from .sources import Stamp, unchanged

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
_THREADS = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip
_HOME = str(Path(__file__).resolve().parent.parent)


def command(numbers: list[int]) -> list[str]:
    """How a worker is started; ``numbers`` are what ``lab.rank_main`` expects."""
    return [sys.executable, "-P", "-u", "-m", "lab.rank_main", *map(str, numbers)]


def environment() -> dict[str, str]:
    """The parent's environment, with one thread per rank and the loopback interface unless another is asked for."""
    network = {"GLOO_SOCKET_IFNAME": LOOPBACK, "NCCL_SOCKET_IFNAME": LOOPBACK}
    home = "" if "site-packages" in Path(_HOME).parts else _HOME  # installed packages are found anyway
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    return {**network, **os.environ, **dict.fromkeys(_THREADS, "1"), "PYTHONPATH": path, INSIDE: "1"}


class Worker:
    """One rank's process, the channel to it and the file that takes its output."""

    def __init__(self, rank: int, ranks: int, memory: IO[bytes]):
        near, far = socket.socketpair()
        near.setblocking(False)
        self.output = _appending_file()
        numbers = [far.fileno(), memory.fileno(), rank, ranks, os.getpid()]
        # A group of its own: a Ctrl-C of the terminal does not reach it, and whatever it starts dies with it.
        self.process = subprocess.Popen(
            command(numbers), stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output, env=environment(),
            pass_fds=numbers[:2], process_group=0,
        )  # fmt: skip
        far.close()
        self.channel = Channel(near)
        self.code: int | None = None

    def ended(self) -> int | None:
        """The exit code as subprocess gives it, or None while it lives. What it had started is killed at once."""
        if self.code is None and self.process.poll() is not None:
            self.code = self.process.returncode
            self._signal_group(signal.SIGKILL)
        return self.code

    def kill(self) -> None:
        """Kill it and whatever it started, stopped or not; does not wait."""
        if self.ended() is None:
            self._signal_group(signal.SIGKILL)

    def close(self) -> None:
        """Wait for the end of a killed process and let go of its channel and file."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10)
        self.channel.end.close()
        self.output.close()

    def text(self) -> str:
        """What it printed since the run began."""
        return self._printed().decode(errors="replace")

    def whereabouts(self) -> str:
        """Its Python stack, which faulthandler prints when asked by a signal, even from within C++."""
        before = len(self._printed())
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGUSR1)
        time.sleep(0.2)
        stack = self._printed()[before:].decode(errors="replace").strip()
        os.ftruncate(self.output.fileno(), before)
        return stack

    def _printed(self) -> bytes:
        return os.pread(self.output.fileno(), os.fstat(self.output.fileno()).st_size, 0)

    def _signal_group(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


class Gang:
    """N ranks that share a board and a store.

    ``sources`` are the files that its processes have loaded; ``joined`` says that they have met, ``spent`` that they
    take no further run.
    """

    def __init__(self, ranks: int):
        self.workers: list[Worker] = []
        self.sources: set[Stamp] = set()
        self.joined = self.spent = False
        self._owner = os.getpid()
        self._store: Any = None
        self._rested: tuple[float, list[int]] | None = None
        with tempfile.TemporaryFile() as file:
            file.truncate(ranks * board.RECORD_BYTES)
            self.memory = mmap.mmap(file.fileno(), 0)
            try:
                for rank in range(ranks):
                    self.workers.append(Worker(rank, ranks, file))
            except BaseException:
                self.end()
                raise

    def open_store(self) -> int:
        """Open the store where the ranks meet; its port. Loading torch here overlaps with their loading it."""
        self._store = _store_on_loopback()
        return int(self._store.port)

    def clear(self) -> None:
        """Forget notes and output of what was before."""
        for rank, worker in enumerate(self.workers):
            board.clear(self.memory, rank)
            os.ftruncate(worker.output.fileno(), 0)

    def status(self, rank: int) -> board.Status:
        """What the board says of a rank."""
        return board.read(self.memory, rank)

    def rest(self) -> None:
        """Remember when it became idle."""
        self._rested = time.monotonic(), self._beats()

    def usable(self) -> bool:
        """Whether an idle gang can take another run: all alive, none stopped, no source file changed."""
        if self._owner != os.getpid() or any(worker.ended() is not None for worker in self.workers):
            return False
        since, beats = self._rested or (time.monotonic(), [])
        if time.monotonic() - since > 2.0 and any(map(int.__eq__, beats, self._beats())):
            return False
        return unchanged(self.sources)

    def kill(self) -> None:
        """Kill every rank and wait until they are gone. What they printed can still be read."""
        if self._owner != os.getpid():  # a forked child has copies of what belongs to its parent
            return
        self.spent = True
        for worker in self.workers:
            worker.kill()
        for worker in self.workers:
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(timeout=10)

    def end(self) -> None:
        """Kill every rank and let go of everything."""
        if self._owner != os.getpid():
            return
        self.kill()
        for worker in self.workers:
            worker.close()
        self.memory.close()
        self._store = None  # its destructor closes the port

    def _beats(self) -> list[int]:
        return [self.status(rank).beats for rank in range(len(self.workers))]


def _appending_file() -> IO[bytes]:
    """A file without a name. Both ends always write at its end, so that it can be emptied between runs."""
    import fcntl

    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (open for as long as the rank lives)
    fcntl.fcntl(file.fileno(), fcntl.F_SETFL, fcntl.fcntl(file.fileno(), fcntl.F_GETFL) | os.O_APPEND)
    return file


def _store_on_loopback() -> Any:
    """A TCPStore on a free port. By itself it would listen on every interface, so it is given a bound socket."""
    from torch.distributed import TCPStore

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    return TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())
