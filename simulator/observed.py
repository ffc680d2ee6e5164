"""What a program asks its rank: the only way in which it can tell its place from that of others."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Set
from dataclasses import replace
from functools import partial
from inspect import signature
from operator import sub
from typing import Any

from .cutting import Cut
from .errors import CannotFold
from .rank import Rank
from .values import Value, bounds

Question = tuple[Any, ...]
"""The name of what was asked, and what it was asked about."""

WORLD = "world"

METHODS = ("at", "first", "last", "position", "peer", "group", "divided", "chunk")
"""What can be asked about places on the grid."""

OPEN = ("blocks", "microbatches", "model", "whole_model")
"""What is asked most, is no question and never changes."""

ANSWERS: dict[str, Callable[..., Any]] = {name: getattr(Rank, name) for name in METHODS} | {
    "chunk": lambda me, elements, axis: sub(*reversed(bounds(elements, me.at(axis), me.size(axis)))),
    "rank": lambda me: me.rank,
    "share": lambda me: None if me.share is None else me.share[1],
}
"""What of the answers must agree: of chunks, how large they are, and of shares of the batch, of how many."""


class Marked(tuple[int, int]):
    """(which, of how many): to look at the second alone is no question."""

    asked: Callable[[], None]

    def __new__(cls, pair: tuple[int, int], asked: Callable[[], None]) -> Marked:
        made = super().__new__(cls, pair)
        made.asked = asked
        return made

    def __getitem__(self, index: Any) -> Any:
        if index != 1:
            self.asked()
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[int]:
        self.asked()
        return super().__iter__()

    def __eq__(self, other: object) -> bool:
        self.asked()
        return super().__eq__(other)

    def __hash__(self) -> int:
        self.asked()
        return super().__hash__()


class Observed:
    """A rank that remembers the ``questions`` to which others might give another answer.

    >>> from simulator import DataParallel, Model
    >>> from simulator.stack import stack
    >>> me = Observed(Rank(stack(DataParallel()), 1, 4, Model.of_times(blocks=2), steps=1))
    >>> me.first("data"), me.size("data"), me.questions
    (False, 4, {('first', 'data')})
    """

    _me: Rank
    questions: set[Question]

    def __init__(self, me: Rank):
        vars(self).update({name: getattr(me, name) for name in OPEN}, _me=me, questions=set[Question]())

    def __setattr__(self, name: str, value: Any) -> None:
        vars(self).pop(name, None)
        setattr(self._me, name, value)  # a program that says which step it is in says so to the machine

    def __getattr__(self, name: str) -> Any:
        if name in METHODS:
            return self._method(name)
        if name in ("rank", "slice"):
            self.ask(("rank",))
        if name == "share":
            self.ask(("share",))
            return None if self._me.share is None else Marked(self._me.share, lambda: self.ask(("rank",)))
        return self._cut() if name == "cut" else getattr(self._me, name)

    def ask(self, question: Question) -> None:
        """Remember a question."""
        self.questions.add(question)

    def _method(self, name: str) -> Callable[..., Any]:
        method = getattr(self._me, name)

        def asking(*args: Any, **kwargs: Any) -> Any:
            given = (*args, *signature(method).bind(*args, **kwargs).args[len(args) :]) if kwargs else args
            self.ask(self._about_a_chunk(*given) if name == "chunk" else (name, *given))
            return method(*given)

        return asking

    def _about_a_chunk(self, value: Value, axis: str) -> Question:
        """Of what has a number of elements, how large its chunks are is all that matters."""
        try:
            return "chunk", self._me.elements(value), axis
        except ValueError:
            return "at", axis

    def _cut(self) -> Cut:
        """Which of those who share blocks: a question; of how many: none."""
        cut, places = self._me.cut, dict[str, Any]()
        for axis in ("tensor", "context", "expert"):
            if getattr(cut, axis)[1] > 1:
                places[axis] = Marked(getattr(cut, axis), partial(self.ask, ("at", axis)))
        return replace(cut, **places)


class Watched(Observed):
    """A rank that may be asked only what is ``known`` to have been asked. Raises CannotFold for anything else."""

    known: Set[Question]

    def __init__(self, me: Rank, known: Set[Question]):
        super().__init__(me)
        vars(self).update(known=known)

    def ask(self, question: Question) -> None:
        """Refuse what was not asked before: others might give another answer."""
        if question not in self.known:
            raise CannotFold(f"rank {self._me.rank} is asked {question} only later than in the two steps that are read")


def answer(me: Rank, question: Question) -> Any:
    """What of a rank's answer to a question must agree with that of others."""
    return ANSWERS[question[0]](me, *question[1:])


def axis_of(question: Question) -> str:
    """The axis along which a place decides the answer; "world" where the rank itself does."""
    return WORLD if question[0] in ("rank", "share", "peer", "group") else question[-1]


def load(me: Rank) -> Hashable:
    """How much a rank has to do: ranks for which it is the same take the same time for the same instruction."""
    workers = None if me.share is None else me.share[1]
    known, view = me.whole_model.views, (id(me.model), me.blocks)
    if view not in known:
        work = me.model.load, me.model.loss, me.model.update, me.model.reduce
        known[view] = known.setdefault((work, *map(me.model.blocks.__getitem__, _near(me))), len(known))
    return workers, me.taken, me.microbatches, me.blocks, known[view]


def _near(me: Rank) -> list[int]:
    """The blocks that a rank computes, and those that it hands on to."""
    return sorted({*me.blocks, *(block + 1 for block in me.blocks if block + 1 < len(me.model.blocks))})
