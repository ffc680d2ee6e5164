"""A data loader: batches of later steps are fetched while this one is computed.

With C seconds of computation per step, and loading that takes L seconds per step in each of w workers, a step takes
max(C, L/w) once the first batch is there, in place of C + L: see ``theory.loaded``. So PyTorch's DataLoader does with
``num_workers`` and ``prefetch_factor``.
"""

from __future__ import annotations

from dataclasses import dataclass

from .. import checks
from ..program import Copy, Free, Load, Start, Wait
from ..rank import Rank
from ..stack import Layer, Program, Rules
from ..values import Act, Ahead, Target


@dataclass(frozen=True)
class Loader(Layer):
    """Load on streams of their own, steps ahead of the computation.

    - ``workers``: how many steps are loaded at once, on the streams "loader 0", "loader 1", …
    - ``prefetch``: how many steps each worker may be ahead.

    On real ranks a worker is a thread: what a problem's ``prepare`` waits for, or does in torch or numpy, goes on
    beside the computation; Python code takes turns with it. On the virtual clock a step's loading takes ``Model.load``.

    Raises ValueError for numbers below 1.

    >>> from simulator import DataParallel, stack
    >>> print(stack(DataParallel(), Loader(workers=2)))
    DataParallel() + Loader(workers=2)
    """

    workers: int = 1
    prefetch: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("workers", self.workers, least=1)
        checks.whole("prefetch", self.prefetch, least=1, of="in steps per worker")

    def rules(self, me: Rank) -> Rules:
        def load(load: Load) -> Program:
            """Start what may be fetched by now, wait for what is wanted now, and let go of where it was kept."""
            if load.step is not None:  # another loader's
                yield load
                return
            step, part, begun = me.step, load.microbatch % me.microbatches, me.memory.get("steps loaded", 0)
            until = max(step + 1, min(step + self.workers * self.prefetch + 1, me.total))
            for later in range(begun, until):
                yield self._fetch(me, later)
            me.memory["steps loaded"] = max(begun, until)
            for value in load.writes:
                fetched = Ahead(_numbered(value, part), step)
                yield Wait(fetched)
                yield Copy(fetched, value)
                yield Free(fetched)

        return {Load: load}

    def _fetch(self, me: Rank, step: int) -> Start:
        """All that a rank needs for a step."""
        return Start([Load(part, step) for part in range(me.microbatches)], on=f"loader {step % self.workers}")


def _numbered(value: object, microbatch: int) -> Act | Target:
    """The inputs or targets of a microbatch, as a loader numbers them: within its step."""
    return Act(0, microbatch) if isinstance(value, Act) else Target(microbatch)
