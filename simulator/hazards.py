"""Values in flight, which were started and not yet waited for, and parameters that were let go.

Touching such a value is an error: real ranks would compute wrong numbers, although virtual ones may not.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from .program import AllGather, Broadcast, Free, Instruction, Load, Start, Until, Update, Wait
from .values import Grads, Params, Value, overlap, whole


class Hazard(Exception):
    """An instruction touches a value that it must not. The machines turn it into a ProgramError with the grid."""


class InFlight:
    """What one rank has started on its streams and not yet waited for."""

    def __init__(self) -> None:
        self.started: list[tuple[str, Instruction]] = []
        self.by_place: dict[object, list[tuple[str, Instruction]]] = {}
        self.gone: dict[object, Free] = {}

    def issue(self, instruction: Instruction, stream: str) -> None:
        """Check an instruction that a rank is about to issue on a stream; remember what it starts or waits for."""
        if not self.started and not self.gone and not isinstance(instruction, (Start, Until, Free)):
            return  # there is nothing yet that it could touch
        if isinstance(instruction, Wait):
            self._wait(instruction.value)
        elif isinstance(instruction, Start):
            for inner in instruction.what:
                self._check(inner, instruction.on)
            self._start(instruction)
        elif isinstance(instruction, Until):
            self._until(instruction, stream)
        else:
            self._check(instruction, stream)

    def _until(self, until: Until, stream: str) -> None:
        """The work may end anywhere: what it starts may be in flight afterwards, even if its end waits for it."""
        inside = InFlight()
        inside._fill(self.started)
        inside.gone = dict(self.gone)
        for inner in until.what:
            inside.issue(inner, stream)
            if isinstance(inner, Start):
                self._start(inner)
        self.gone = {place: free for place, free in self.gone.items() if place in inside.gone}
        self._check(until.recv, stream)

    def _wait(self, value: Value | None) -> None:
        left = [(on, inner) for on, inner in self.started if not awaits(value, (inner,))]
        if len(left) < len(self.started):
            self._fill(left)

    def _start(self, start: Start) -> None:
        for inner in start.what:
            self.started.append((start.on, inner))
            for place in places(inner):
                self.by_place.setdefault(place, []).append((start.on, inner))

    def _fill(self, started: list[tuple[str, Instruction]]) -> None:
        self.started, self.by_place = list(started), {}
        for entry in self.started:
            for place in places(entry[1]):
                self.by_place.setdefault(place, []).append(entry)

    def _check(self, instruction: Instruction, stream: str) -> None:
        touched = places(instruction) if self.started else ()
        for on, other in (entry for place in touched for entry in self.by_place.get(place, ())):
            if on == stream:
                continue
            if (value := conflict(instruction, other)) is not None:
                raise Hazard(
                    f"{instruction} touches {value}, which is in flight on stream {on!r} ({other}):"
                    f" put a Wait({value}) before it"
                )
        if self.gone or type(instruction) is Free:
            self._require_here(instruction)

    def _require_here(self, instruction: Instruction) -> None:
        """Refuse the use of parameters that were let go; remember what lets some go, and what brings some back."""
        if isinstance(instruction, Free):
            if isinstance(instruction.value, Params):  # of parts that are let go one by one nothing is known
                self.gone |= dict.fromkeys(_places(instruction.value), instruction)
            return
        if self.gone.keys().isdisjoint(places(instruction)):
            return
        for value in used(instruction):
            free = next((self.gone[place] for place in _places(whole(value)) if place in self.gone), None)
            if free is not None and (free.keep is None or isinstance(value, Params)):
                raise Hazard(
                    f"{instruction} uses {value}, which was let go ({free}): gather or receive it before it is used"
                )
        for value in instruction.writes if not isinstance(instruction, Update) else ():
            for place in _places(whole(value)):
                self.gone.pop(place, None)


def touches(instruction: Instruction, value: Value) -> bool:
    """Whether an instruction reads or writes a value."""
    return any(overlap(value, other) for other in (*instruction.reads, *instruction.writes))


def used(instruction: Instruction) -> tuple[Value, ...]:
    """The values that must be here: an update needs its parameters, and what gathers or spreads them does not."""
    if isinstance(instruction, Update):
        return (*instruction.reads, *instruction.writes)
    spreads = isinstance(instruction, Broadcast) or (isinstance(instruction, AllGather) and instruction.into is None)
    return () if spreads else instruction.reads


def awaits(value: Value | None, what: Iterable[Instruction]) -> bool:
    """Whether a Wait for a value, or for all, waits for what was started: data of later steps only by their name."""
    if value is None:
        return not any(isinstance(one, Load) and one.step is not None for one in what)
    return any(touches(one, value) for one in what)


@lru_cache(maxsize=4096)
def places(instruction: Instruction) -> frozenset[object]:
    """Where it reads and writes, coarsely: instructions that share no place have no conflict. Much faster to ask."""
    values = map(whole, (*instruction.reads, *instruction.writes))
    return frozenset(place for value in values for place in _places(value))


def _places(value: Value) -> Iterable[object]:
    if isinstance(value, (Params, Grads)):
        return [(type(value), block) for block in value.blocks]
    return [value]


def conflict(new: Instruction, old: Instruction) -> Value | None:
    """A value that both touch and at least one of them writes."""
    for written in old.writes:
        for value in (*new.reads, *new.writes):
            if overlap(value, written):
                return value
    for read in old.reads:
        for value in new.writes:
            if overlap(value, read):
                return value
    return None
