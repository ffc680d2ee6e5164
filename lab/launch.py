"""Running a function on several local ranks: from a notebook cell, a script or a test.

    >>> def hello(place):
    ...     return place.rank * 10
    >>> run_ranks(hello, 2)  # doctest: +SKIP
    [0, 10]

Ranks are fresh processes, never forks, and stay warm for the next run. Whatever happens to one of them ends the
run with one error that names it, and leaves nothing behind.
"""

from __future__ import annotations

import atexit
import contextvars
import os
import pickle
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import cloudpickle

from simulator import checks

from .channel import Frame
from .gang import Gang
from .place import Place, inside_rank
from .pool import POOL
from .watch import StoppedError, Watch

__all__ = ["Handle", "Place", "StoppedError", "run_ranks", "start_ranks"]

OnProgress = Callable[[float], object]


def run_ranks(
    function: Callable[..., Any],
    ranks: int,
    *arguments: Any,
    timeout: float = 30.0,
    on_progress: OnProgress | None = None,
    show_output: bool = True,
) -> list[Any]:
    """Call ``function(place, *arguments)`` on each of ``ranks`` local ranks; the results, in rank order.

    In each rank the default process group is initialised: gloo, and nccl too where every rank has a GPU.
    Interrupting the call ends the ranks.

    - ``function``: any function, also one defined in a notebook cell. ``ranks``: number of processes.
    - ``timeout``: seconds that a rank may go without progress (``place.board.note``) before the run is given up.
    - ``on_progress``: hears the fraction done, about ten times per second, in another thread.
    - ``show_output``: print what the ranks printed, in rank order, when the run has ended.

    Raises RankError when a rank raised, died, was stopped, hangs or never came; ValueError of a bad argument, or when
    the function itself raised one; RuntimeError inside a rank.
    """
    handle = Handle(function, ranks, arguments, timeout, on_progress, show_output)
    try:
        handle._start()
        return handle.result()
    except BaseException:
        handle.stop()
        raise


def start_ranks(
    function: Callable[..., Any],
    ranks: int,
    *arguments: Any,
    timeout: float = 30.0,
    on_progress: OnProgress | None = None,
    show_output: bool = True,
) -> Handle:
    """Like ``run_ranks``, but returns at once; a thread watches the ranks."""
    handle = Handle(function, ranks, arguments, timeout, on_progress, show_output)
    handle._start()
    return handle


class Handle:
    """A run under way. Interrupting ``result()`` lets the run go on; ``stop()`` ends it."""

    def __init__(
        self,
        function: Callable[..., Any],
        ranks: int,
        arguments: tuple[Any, ...],
        timeout: float,
        on_progress: OnProgress | None,
        show_output: bool,
    ):
        _check(ranks, timeout)
        facts = {"path": list(sys.path), "folder": os.getcwd()}
        self._job = Frame("job", facts, cloudpickle.dumps((function, arguments)))
        self._ranks, self._timeout, self._on_progress, self._show = ranks, timeout, on_progress, show_output
        self._progress = 0.0
        self._results: list[Any] = []
        self._error: BaseException | None = None
        self._stopped, self._done = threading.Event(), threading.Event()
        # In a copy of this context, Jupyter knows to which cell the output belongs. A daemon, so that a script's
        # end does not wait for it: _stop_all ends the ranks then.
        run = contextvars.copy_context().run
        self._thread = threading.Thread(target=run, args=(self._run,), name="ranks", daemon=True)

    @property
    def progress(self) -> float:
        """The fraction done, from 0 to 1: the least over the ranks."""
        return self._progress

    @property
    def done(self) -> bool:
        """Whether the run has ended, well or not."""
        return self._done.is_set()

    def stop(self) -> None:
        """End the ranks and wait until they are gone. A run that has ended stays as it is."""
        self._stopped.set()
        if self._thread.is_alive():
            self._done.wait(30.0)

    def result(self) -> list[Any]:
        """Wait for the end; the results in rank order. Raises what went wrong, StoppedError after ``stop()``."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._results

    # ---------------------------------------------------------------- in the thread

    def _start(self) -> None:
        _HANDLES.add(self)
        self._thread.start()

    def _run(self) -> None:
        try:
            gang = POOL.borrow(self._ranks)
            try:
                self._results = self._watch(gang)
            except BaseException:
                gang.kill()
                raise
            finally:
                self._print_output(gang)
                POOL.give_back(gang)
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()

    def _watch(self, gang: Gang) -> list[Any]:
        watch = Watch(gang, self._timeout, self._stopped, self._note)
        try:
            if not gang.joined:
                watch.arrive()
            return [pickle.loads(body) for body in watch.work(self._job)]
        finally:
            watch.close()

    def _note(self, fraction: float) -> None:
        self._progress = fraction
        if self._on_progress is not None:
            self._on_progress(fraction)

    def _print_output(self, gang: Gang) -> None:
        lines = [f"[rank {rank}] {line}\n" for rank, w in enumerate(gang.workers) for line in w.text().splitlines()]
        if self._show and lines:
            with suppress(OSError, ValueError):  # a closed terminal is no reason to lose the results
                sys.stdout.write("".join(lines))
                sys.stdout.flush()


def _check(ranks: int, timeout: float) -> None:
    if inside_rank():
        raise RuntimeError("ranks cannot be started inside a rank; start them from the notebook or script itself")
    checks.whole("ranks", ranks, least=1)
    checks.number("timeout", timeout, above=0, of="in seconds")


_HANDLES: weakref.WeakSet[Handle] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """At the end of the process, end the runs under way; the pool ends the idle gangs after that."""
    for handle in list(_HANDLES):
        if not handle.done:
            handle.stop()
