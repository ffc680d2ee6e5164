"""What the virtual machine keeps of a rank while it runs: threads, and tasks on streams."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .hazards import InFlight
from .noise import Factor
from .program import Instruction, Recv
from .rank import Rank
from .stack import Program
from .values import Value

if TYPE_CHECKING:
    from .learning import Tensors
    from .mail import Channel

BLOCKED = object()
"""What a handler gives when the thread must wait."""


@dataclass(slots=True)
class Decoded:
    """All that does not change from one execution of an instruction to the next."""

    handler: Callable[[Thread, Any, Decoded], object] | None
    seconds: float
    label: int
    size: float
    text: str
    stores: bool


@dataclass(slots=True, eq=False)
class Task:
    """Something started on a stream in a step, at a row of the program's listing.

    ``end`` is when it was done, ``waiters`` are threads that need it.
    """

    what: tuple[Instruction, ...]
    issued: float
    step: int
    row: int
    end: float | None = None
    waiters: list[Thread] | None = None


@dataclass(slots=True, eq=False)
class Guard:
    """An Until at work: its message, how much of its work is done, and when the current piece began."""

    recv: Recv
    outer: Program
    source: int
    live: bool
    posted: float = 0.0
    parcel: Parcel | None = None
    done: int = 0
    stopped: int = -1
    running: tuple[Decoded, float] | None = None

    @property
    def abandoned(self) -> bool:
        """Whether the run that is replayed stopped the work, after so many instructions."""
        return self.stopped >= 0


@dataclass(slots=True, eq=False)
class Parcel:
    """A message under way or waiting to be taken: of ``value``, or, ``empty``, instead of it."""

    source: int
    value: Value
    empty: bool
    version: int
    size: float
    data: Any
    label: int
    step: int
    time: float = 0.0
    seen: bool = False
    sent: float = 0.0
    late: bool = False


@dataclass(slots=True, eq=False)
class Wanted:
    """A Recv that waits: since when, for whom, and the parcel that is on its way to it, where that is settled."""

    thread: Thread
    recv: Recv
    source: int
    posted: float
    abandoned: bool = False
    parcel: Parcel | None = None


class Thread:
    """A line of execution of a rank: its own program, or a stream. ``clock`` may be ahead of the simulation."""

    __slots__ = ("clock", "current", "guard", "index", "program", "queue", "result", "state", "stream", "task", "waits")

    def __init__(self, state: State, stream: str, index: int):
        self.state, self.stream, self.index = state, stream, index
        self.clock = 0.0
        self.program: Program | None = None
        self.queue: deque[Task] = deque()
        self.task: Task | None = None
        self.guard: Guard | None = None
        self.current: Instruction | None = None
        self.waits = 0
        self.result: object = None

    @property
    def step(self) -> int:
        """The step that its work belongs to: that in which it was started, though its rank may be further."""
        return self.state.me.step if self.task is None else self.task.step


class State:
    """A rank: what it knows, its threads, what it has started, its letterbox."""

    __slots__ = (
        "factor", "flight", "history", "inbox", "known", "main", "me", "offers", "outcomes", "replay", "streams",
        "tasks", "tensors", "waiting",
    )  # fmt: skip

    def __init__(self, me: Rank, known: dict[Instruction, Decoded], factor: Factor | None, tensors: Tensors | None):
        self.me, self.known, self.factor, self.tensors = me, known, factor, tensors
        self.streams: dict[str, Thread] = {}
        self.main: Thread
        self.tasks: list[Task] = []
        self.inbox: list[Parcel] = []
        self.waiting: list[Wanted] = []
        self.offers: list[Channel] = []
        self.outcomes: list[int] = []
        self.replay: deque[int] | None = None
        self.flight: InFlight | None = None
        self.history: list[str] | None = None

    @property
    def threads(self) -> tuple[Thread, ...]:
        """The rank's own thread and those of its streams."""
        return self.main, *self.streams.values()
