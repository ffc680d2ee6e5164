"""Ranks that another launcher starts: what they are given, how they tell how far they are, and what they bring back.

One process of ours starts the launcher and waits for it; it and the ranks share a folder, with a board in it.
"""

from __future__ import annotations

import mmap
import os
import pickle
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from .. import board
from ..board import Board
from ..place import Place

_TICK = 0.1


@dataclass(frozen=True)
class Folder:
    """The folder that a launcher's ranks share with the process that waits for them."""

    path: Path
    ranks: int

    def fill(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Write what every rank shall call, and an empty board."""
        (self.path / "task").write_bytes(cloudpickle.dumps((function, arguments)))
        (self.path / "board").write_bytes(bytes(board.RECORD_BYTES * self.ranks))

    def work(self, rank: int) -> None:
        """Be one of the ranks: call the function and leave its result; an error is left too, and raised."""
        function, arguments = pickle.loads((self.path / "task").read_bytes())
        place = Place(rank, self.ranks, "cpu", Board(self._memory(), rank))
        try:
            (self.path / f"result{rank}").write_bytes(cloudpickle.dumps(function(place, *arguments)))
        except Exception as error:
            plain = error if isinstance(error, ValueError) else None
            left = (rank, place.board.status().step, str(place.board.status()), plain, traceback.format_exc())
            (self.path / f"error{rank}").write_bytes(cloudpickle.dumps(left))
            raise

    def results(self) -> list[Any]:
        """What all ranks brought back."""
        return [pickle.loads((self.path / f"result{rank}").read_bytes()) for rank in range(self.ranks)]

    def raise_error(self, last_words: str = "") -> None:
        """Raise what went wrong: a rank's own ValueError, else RuntimeError with its traceback or the last words."""
        for path in sorted(self.path.glob("error*")):
            rank, step, where, plain, report = pickle.loads(path.read_bytes())
            if plain is not None:
                plain.add_note(f"(rank {rank}, {where})")
                raise plain
            raise RuntimeError(f"rank {rank} failed in step {step} ({where}):\n{report}")
        raise RuntimeError(f"the launcher failed; its last words:\n{last_words.strip()[-2000:] or 'none'}")

    @contextmanager
    def watched(self, place: Place) -> Iterator[None]:
        """Meanwhile, say on this process's own board how far the slowest of the ranks is."""
        over = threading.Event()
        thread = threading.Thread(target=self._relay, args=(place, over), name="relay", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _relay(self, place: Place, over: threading.Event) -> None:
        memory, before = self._memory(), 0
        while not over.wait(_TICK):
            every = [board.read(memory, rank) for rank in range(self.ranks)]
            if (notes := sum(status.notes for status in every)) != before:
                slowest, before = min(every, key=lambda status: status.fraction), notes
                place.board.progress(slowest.fraction)
                place.board.note(slowest.step, slowest.instruction, waiting=True)

    def _memory(self) -> mmap.mmap:
        with open(self.path / "board", "r+b") as file:
            return mmap.mmap(file.fileno(), 0)


@contextmanager
def temporary(ranks: int) -> Iterator[Folder]:
    """A folder that is removed in the end. The parent makes it, for it outlives a process that waits and is killed."""
    with tempfile.TemporaryDirectory(prefix="twoclocks-", ignore_cleanup_errors=True) as name:
        yield Folder(Path(name), ranks)


def end_with(parent: int) -> None:
    """End this process as soon as another one is gone."""

    def watch() -> None:
        while True:
            try:
                os.kill(parent, 0)
            except ProcessLookupError:
                os._exit(1)
            time.sleep(_TICK)

    threading.Thread(target=watch, name="life", daemon=True).start()
