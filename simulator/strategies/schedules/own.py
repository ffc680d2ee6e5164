"""Orders that users hand in: a list of tasks for each rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from ... import checks
from .task import Schedule, Task

KINDS = ("F", "B", "I", "W")
"""Forward, backward, and the two halves of backward: for the input, for the weights."""

LEGAL = (("F", "B"), ("F", "I", "W"))
"""What a rank does with each microbatch and chunk, in this order."""


@dataclass(frozen=True)
class Orders:
    """The tasks of each rank, as they were given."""

    of_ranks: tuple[tuple[Task, ...], ...]

    def tasks(self, at: int, ranks: int, microbatches: int, chunks: int) -> Iterator[Task]:
        """What the rank at a position does."""
        return iter(self.of_ranks[at])

    def check(self, ranks: int, microbatches: int) -> None:
        """There is a list for each rank."""
        if ranks != len(self.of_ranks):
            raise ValueError(
                f"a schedule of one's own has a list of tasks for each rank; got {len(self.of_ranks)} for {ranks} ranks"
            )


def own(given: object, microbatches: int, placement: str) -> Schedule:
    """A schedule of the tasks that are given for each rank. Raises ValueError for what no rank can do.

    Whether the ranks fit together is for the machines to say: where they wait for each other, ``validate`` shows where.
    """
    orders = [_order(at, tasks) for at, tasks in enumerate(_listed(given, "schedule"))]
    chunks = 1 + max((task.chunk for order in orders for task in order), default=0)
    for at, order in enumerate(orders):
        _check(at, order, microbatches, chunks)

    given_orders = Orders(tuple(orders))
    return Schedule(given_orders.tasks, chunks, placement=placement, check=given_orders.check)


def plain(given: object) -> tuple[tuple[tuple[object, ...], ...], ...]:
    """Lists as tuples, so that strategies can be compared."""
    return tuple(
        tuple(tuple(_listed(task, "task")) for task in _listed(tasks, "tasks")) for tasks in _listed(given, "schedule")
    )


def _listed(given: object, name: str) -> Sequence[object]:
    """A list or a tuple that is not empty."""
    if not isinstance(given, (list, tuple)) or not given:
        raise ValueError(
            "a schedule of one's own is a list of tasks for each rank, such as [[('F', 0), ('B', 0)]];"
            f" got {name}={given!r}"
        )
    return given


def _order(at: int, tasks: object) -> tuple[Task, ...]:
    return tuple(_task(at, task) for task in _listed(tasks, "tasks"))


def _task(at: int, given: object) -> Task:
    parts = _listed(given, "task")
    if len(parts) not in (2, 3) or parts[0] not in KINDS:
        raise ValueError(
            f"a task is ('F', microbatch) or ('F', microbatch, chunk), of the kinds {', '.join(map(repr, KINDS))};"
            f" got {given!r} on rank {at}"
        )
    whose, names = f"{given!r} on rank {at}", ("microbatch", "chunk")
    return Task(str(parts[0]), *(checks.whole(name, part, of=whose) for name, part in zip(names, parts[1:])))


def _check(at: int, order: tuple[Task, ...], microbatches: int, chunks: int) -> None:
    """Everything is done with each microbatch and chunk, once and in order."""
    most = max(task.microbatch for task in order)
    if most >= microbatches:
        raise ValueError(
            f"the microbatches of a schedule are numbered from 0 to {microbatches - 1}; got number {most} on rank {at}:"
            f" say microbatches={most + 1}"
        )
    done: dict[tuple[int, int], list[str]] = {key: [] for key in product(range(microbatches), range(chunks))}
    for task in order:
        done[task.microbatch, task.chunk].append(task.what)
    for (microbatch, chunk), kinds in done.items():
        if tuple(kinds) not in LEGAL:
            raise ValueError(
                f"each of {microbatches} microbatches goes through each chunk of a rank as F and B, or as F, I and W,"
                f" in this order; microbatch {microbatch} goes through chunk {chunk} of rank {at} as"
                f" {', '.join(kinds) or 'nothing'}"
            )
