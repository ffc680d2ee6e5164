"""What one rank notes while PyTorch trains: phases of a step, collectives, losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite
from threading import Lock
from typing import Any

import torch
import torch.distributed as dist

from simulator.errors import DivergedError
from simulator.spans import COMPUTE, Sample, Spans

from ..clocks import Clock, agree
from ..lanes import future_of
from ..place import Place
from .issued import Issued
from .watching import Work, watching


class Log:
    """Spans and samples of one rank, on the clock that all ranks agree on.

    ``axis`` is what the group of all ranks is called.

    A collective's span lasts from when it is issued, or from the end of the one before it on its stream, until its
    result is there, or, where PyTorch does not tell, is waited for or its phase ends. A phase's span holds the waiting
    inside it.
    """

    def __init__(self, place: Place, total: int, axis: str = "world"):
        self.place, self.total, self.axis = place, total, axis
        self.step = self.version = 0
        self.clock, self.counts = Clock(), False
        self.spans, self.samples = Spans(), list[Sample]()
        self.ends: dict[str, float] = {}
        self.open: dict[object, tuple[Issued, float, int, Any]] = {}
        self.lock = Lock()  # gloo tells of ends in its own threads
        self.tells_ends = place.device == "cpu"  # nccl's futures are done when a collective is queued

    def steps(self, first: int = 0) -> Iterator[int]:
        """The steps of the run from ``first`` on, one after another."""
        for self.step in range(first, self.total):
            self.place.board.progress(self.step / self.total)
            yield self.step

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """A part of a step on this rank. Its text begins as that of an instruction: "Forward 0 mb0"."""
        self.place.board.note(self.step, text, True)
        start = self.clock.now()
        yield
        self.place.synchronise()
        self._end_completed()
        self._add(COMPUTE, text, self.step, start, self.clock.now())

    def loss(self, value: float) -> None:
        """Note a loss; those of one step add up to the mean over this rank's slice. DivergedError if not finite."""
        if self.counts and not isfinite(value):
            raise DivergedError.of_loss(self.place.rank, self.step, value)
        self.sample("loss", value)

    def sample(self, name: str, value: float) -> None:
        """Note a number."""
        if not self.counts:
            return
        self.samples.append(Sample(self.place.rank, self.step, self.clock.now(), name, value, self.version))

    def sent(self, stream: str, text: str, start: float, nbytes: float) -> None:
        """Note a message, from ``start`` [s] until now."""
        self._add(stream, text, self.step, start, self.clock.now(), nbytes)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """What happens inside is noted; what PyTorch does before it, to get ready, is not."""
        self.place.board.note(0, "agreeing on the time", True)
        self.clock = agree(self.place.rank, self.place.ranks)
        self.counts = True
        dist.barrier()  # a worker's first gradient must not come before the server counts
        with watching(self._hear, self._waited, self.place.device):
            yield
            self.place.synchronise()
            for key in list(self.open):
                self._end(key)
        dist.barrier()
        self.counts = False

    # ---------------------------------------------------------------- collectives

    def _hear(self, issued: Issued) -> Callable[[Any], None]:
        start, step = self.clock.now(), self.step
        self.place.board.note(step, issued.kind, True)

        def begun(work: Work | torch.Tensor | list[torch.Tensor]) -> None:
            # The work itself is kept, so that its number is not given to another one meanwhile.
            key = _key(work)
            with self.lock:
                self.open[key] = issued, start, step, work
            if self.tells_ends and isinstance(work, dist.Work) and (future := future_of(work)) is not None:
                future.add_done_callback(lambda _: self._end(key))

        return begun

    def _waited(self, work: Work | torch.Tensor) -> None:
        self._end(_key(work))

    def _end(self, key: object) -> None:
        with self.lock:
            if key not in self.open:
                return
            issued, start, step, _ = self.open.pop(key)
            stream, text = self._stream(issued), f"{issued.kind} {issued.elements}"
            now = self.clock.now()
            begin = min(now, max(start, self.ends.get(stream, start)))
            self.ends[stream] = now
        self._add(stream, text, step, begin, now, issued.nbytes)

    def _end_completed(self) -> None:
        """End what has been done meanwhile on a GPU: DistributedDataParallel waits in C++, where nobody hears of it."""
        if not self.tells_ends:
            for key, (_, _, _, work) in list(self.open.items()):
                if isinstance(work, dist.Work) and work.is_completed():
                    self._end(key)

    def _add(self, stream: str, text: str, step: int, start: float, end: float, nbytes: float = 0.0) -> None:
        if self.counts:
            self.spans.add(self.place.rank, stream, text, step, start, end, nbytes)

    def _stream(self, issued: Issued) -> str:
        """Messages have a stream per peer and direction, collectives one per group: the axis that it goes along."""
        if issued.kind in ("Send", "Recv"):
            return f"{'to' if issued.kind == 'Send' else 'from'} {issued.peer}"
        name = str(issued.group.group_desc)
        return name.removeprefix("mesh_") if name.startswith("mesh_") else self.axis


def _key(work: Work | torch.Tensor | list[torch.Tensor]) -> object:
    """What tells one from another. The tensor that is waited for may be another object on the same memory."""
    if isinstance(work, list):
        work = work[0]
    return work.untyped_storage().data_ptr() if isinstance(work, torch.Tensor) else id(work)
