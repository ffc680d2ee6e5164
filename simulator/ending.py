"""How a simulation ends: with every program at its end, or with an error that shows who waits for what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .errors import ProgramError
from .listing import Listing
from .threads import Parcel, State, Thread

if TYPE_CHECKING:
    from .virtual import Machine


class Ending:
    """Looks at all ranks when no event is left, and makes the errors of a simulation."""

    def __init__(self, machine: Machine):
        self.machine = machine

    def check(self) -> None:
        """Raise ProgramError unless all programs ended, all messages were taken and a replay is used up."""
        stuck = [thread for state in self.machine.states for thread in state.threads if thread.current is not None]
        if stuck:
            lines = [f"rank {t.state.me.rank} waits at {t.current}{_where(t)}{_has(t)}" for t in stuck[:8]]
            raise self.error("deadlock: no rank can go on\n" + "\n".join(lines))
        for state in self.machine.states:
            self._complete(state)
            if left := [*state.inbox, *_offered(state)]:
                parcel = left[0]
                sent = self.machine.spans.labels[parcel.label]
                history = self.machine.state_of(parcel.source).history or []
                raise self.error(
                    f"every Send needs a Recv; rank {state.me.rank} never takes {parcel.value},"
                    f" which rank {parcel.source} sent",
                    [(parcel.source, row) for row, text in enumerate(history) if sent in text][-1:],
                )

    def _complete(self, state: State) -> None:
        """Every worker made all its steps, and a replay has come to its end."""
        if state.me.missing_steps:
            raise self.error(state.me.missing_steps)
        if state.replay:
            raise self.error(f"the replayed run received more often on rank {state.me.rank}: its strategy was another")

    def replayed(self, state: State) -> int:
        """What the run that is replayed got where this rank is now."""
        if not state.replay:
            raise self.error(f"the replayed run received less often on rank {state.me.rank}: its strategy was another")
        return state.replay.popleft()

    def marks(self, states: Iterable[State]) -> list[tuple[int, int]]:
        """(rank, row) of each that cannot go on: where it waits, or where it started what does."""
        rows = []
        for state in states:
            tasks = [thread.task.row for thread in state.threads if thread.current is not None and thread.task]
            at = [len(state.history or ()) - 1] if state.main.current is not None else tasks
            rows += [(state.me.rank, row) for row in at[:1]]
        return rows

    def error(self, text: str, marks: Sequence[tuple[int, int]] | None = None) -> ProgramError:
        """A ProgramError with the grid, and marks in it: unless told otherwise, at each rank that cannot go on."""
        if not self.machine.check or self.machine.folding.folds:
            return ProgramError(text)
        marks = tuple(self.marks(self.machine.states) if marks is None else marks)
        columns = tuple((*(state.history or ()), *self._rest(state)) for state in self.machine.states)
        return ProgramError(f"{text}\n{Listing(columns, marks)}")

    def _rest(self, state: State) -> list[str]:
        """What a rank would have gone on with; known only of programs that use no results."""
        program = state.main.program
        return [str(instruction) for instruction in program] if program and self.machine.stack.order.static else []


def _where(thread: Thread) -> str:
    return "" if thread.task is None else f" on stream {thread.stream!r}"


def _has(thread: Thread) -> str:
    """What lies in the letterbox of a rank that waits for another message."""
    there = [*thread.state.inbox, *_offered(thread.state)]
    parcels = ", ".join(f"{parcel.value} from rank {parcel.source}" for parcel in there[:4])
    return f"; messages are matched by name, and it has been sent {parcels}" if parcels else ""


def _offered(state: State) -> list[Parcel]:
    """What others hold ready for a rank until it asks for it, in a rendezvous."""
    return [parcel for channel in dict.fromkeys(state.offers) for parcel in channel.queue]
