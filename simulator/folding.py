"""Folding: ranks that behave alike are simulated once.

A rank's program knows where it stands only by asking: ``me.at(axis)``, ``me.first(axis)``. Ranks that would get the
same answers to all that one of them asked, and have as much to do, run the same program. They also take the same time,
if their devices are alike and, along every axis, so is whom they communicate with. No strategy needs to say so.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import TypeVar, cast

from .cluster import Cluster
from .errors import CannotFold, Uneven
from .noise import Noise
from .observed import Question, Watched, answer, axis_of, load
from .program import Broadcast, Collective, Instruction, Recv, Send, Start
from .rank import Rank
from .stack import Stack

EVERY = 64
"""So many ranks are all simulated even if they are alike: each then has rows of its own, as in a timeline."""

T = TypeVar("T")
Text = tuple[Instruction, ...]


@dataclass(frozen=True, eq=False)
class Programs:
    """What all ranks say in two steps: ``of[rank]`` is the first that says the same as it.

    Of those, ``texts`` are their programs and ``asked`` what these asked. ``over``: the axes along which anybody
    communicates.
    """

    of: Sequence[int]
    texts: dict[int, Text]
    asked: dict[int, frozenset[Question]]
    over: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Folding:
    """``of[rank]`` is the rank that is simulated in its place: the first of those that are alike.

    ``told``: what they say, on which that rests.
    """

    of: Sequence[int]
    told: Programs | None = None

    @cached_property
    def leaders(self) -> tuple[int, ...]:
        """The ranks that are simulated, ascending."""
        return tuple(sorted(set(self.of)))

    @cached_property
    def folds(self) -> bool:
        """Whether any rank is spared."""
        return len(self.leaders) < len(self.of)

    def watched(self, me: Rank) -> Rank:
        """A rank for its program to ask; CannotFold if it stands for others and is asked what was not foreseen."""
        return cast(Rank, Watched(me, self._asked(me))) if self.folds else me

    def ensure_foreseen(self, me: Rank, over: str, place: bool = False) -> None:
        """Raise CannotFold unless it was foreseen that a rank communicates over an axis, or that its place matters."""
        if self.folds and self.told and (over not in self.told.over or (place and ("at", over) not in self._asked(me))):
            raise CannotFold(f"rank {me.rank} communicates over {over!r} as it does not in the two steps that are read")

    def _asked(self, me: Rank) -> frozenset[Question]:
        return self.told.asked[self.told.of[me.rank]] if self.told else frozenset()


def apart(ranks: int) -> Folding:
    """Every rank stands for itself."""
    return Folding(range(ranks))


def programs(members: Sequence[Rank], say: Callable[[Rank], tuple[Text, set[Question]]]) -> Programs:
    """Sort ranks by what they say, and by their places along axes on which that matters to messages; see ``alike``."""
    asked: dict[int, frozenset[Question]] = {}
    over: dict[str, None] = {}

    def with_places(me: Rank) -> tuple[Text, set[Question]]:
        text, questions = say(me)
        for one in _talk(text):
            over[one.over] = None
            if isinstance(one, (Send, Recv, Broadcast)):  # where a rank stands matters to messages, and to roots
                questions.add(("at", one.over))
        asked[me.rank] = frozenset(questions)
        return text, questions

    of, texts = alike(members, with_places)
    return Programs(of, texts, asked, tuple(over))


def alike(members: Sequence[Rank], say: Callable[[Rank], tuple[T, set[Question]]]) -> tuple[list[int], dict[int, T]]:
    """For each rank the first that says the same about as much work, and what these say.

    ``say`` gives the program of a rank in any form, and what it asked.
    """
    of, texts, left = [0] * len(members), dict[int, T](), dict[Hashable, list[Rank]]()
    for me in members:
        left.setdefault(load(me), []).append(me)
    for ranks in left.values():
        while ranks:
            first = ranks[0]
            texts[first.rank], questions = say(first)
            agreed = _agree(first, ranks, questions)
            for me in agreed:
                of[me.rank] = first.rank
            spared = set(agreed)
            ranks = [me for me in ranks if me not in spared]
    return of, texts


def _agree(first: Rank, ranks: list[Rank], questions: set[Question]) -> list[Rank]:
    """Those who would answer as the first does. What is asked about an axis depends on the place along it alone."""
    for axis in {axis_of(question) for question in questions}:
        mine = {question: answer(first, question) for question in questions if axis_of(question) == axis}
        known: dict[int, bool] = {}
        agree = []
        for me in ranks:
            place = me.at(axis)
            if place not in known:
                known[place] = all(answer(me, question) == other for question, other in mine.items())
            if known[place]:
                agree.append(me)
        ranks = agree
    return ranks


def folded(
    told: Programs,
    whole: Stack,
    cluster: Cluster,
    few: bool = False,
    noise: Noise | None = None,
    uneven: Sequence[Uneven] = (),
) -> Folding:
    """Which ranks are simulated: all where they are not many, unless a ``few`` may be folded too, and wherever each of
    them may have its own luck. ``uneven``: what else tells them apart.
    """
    overheads = cluster.overheads
    if (cluster.ranks <= EVERY and not few) or overheads.random:
        return apart(cluster.ranks)
    return on_cluster(told, whole, cluster, noise, uneven)


def on_cluster(
    told: Programs, whole: Stack, cluster: Cluster, noise: Noise | None = None, uneven: Sequence[Uneven] = ()
) -> Folding:
    """Sort further those who say the same: by device, by links and by luck, as far as these are known before; by those
    with whom they communicate, and how far away; and by what is ``uneven``.
    """
    sorts: dict[Hashable, int] = {}
    wiring, nothing = cluster.wiring, repeat(None)
    luck = nothing if noise is None else map(noise.kind, range(cluster.ranks))
    found = zip(told.of, cluster.devices or nothing, map(wiring.kind, range(cluster.ranks)), luck)
    of = [sorts.setdefault(one, rank) for rank, one in enumerate(found)]
    lines = {axis: list(_lines(whole, cluster.ranks, axis)) for axis in told.over}
    outlines = {axis: [wiring.outline(line) for line in found] for axis, found in lines.items()}
    if any(one is None for found in outlines.values() for one in found):
        return apart(cluster.ranks)
    for one in uneven:
        marks = {rank: mark for line in lines[one.axis] for rank, mark in zip(line, one.marks)}
        sorts = {}
        of = [sorts.setdefault((leader, marks[rank]), rank) for rank, leader in enumerate(of)]
    many = 0
    while many < len(set(of)):
        many = len(set(of))
        of = _finer(of, lines, outlines)
    return Folding(of, told)


def _finer(
    of: list[int], lines: Mapping[str, list[range]], outlines: Mapping[str, list[Hashable | None]]
) -> list[int]:
    """Only those stay together whose neighbours along every axis are of the same sorts, in the same places."""
    marks: list[list[int]] = [[] for _ in of]
    numbers: dict[Hashable, int] = {}
    for axis, found in lines.items():
        for line, outline in zip(found, outlines[axis]):
            mark = numbers.setdefault((axis, tuple([of[rank] for rank in line]), outline), len(numbers))
            for rank in line:
                marks[rank].append(mark)
    sorts: dict[Hashable, int] = {}
    return [sorts.setdefault((one, *marks[rank]), rank) for rank, one in enumerate(of)]


def _lines(whole: Stack, ranks: int, axis: str) -> Iterator[range]:
    """The groups of ranks along an axis."""
    if axis == "world":
        yield range(ranks)
        return
    grid, strides = whole.laid_out(ranks)
    stride, reach = strides[axis], strides[axis] * grid[axis]
    for first in range(0, ranks, reach):
        for place in range(first, first + stride):
            yield range(place, place + reach, stride)


def _talk(text: Text) -> Iterator[Send | Recv | Collective]:
    """The instructions of a program that communicate, those of its sub-programs too."""
    for one in text:
        if isinstance(one, Start):
            yield from _talk(one.what)
        elif isinstance(one, (Send, Recv, Collective)):
            yield one
