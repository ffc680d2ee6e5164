"""What is measured: a table of strategies, each with problems and numbers of ranks that it can run on."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from simulator.checking import AnyStrategy
from simulator.problem import Problem
from simulator.problems import problem
from simulator.simulate import prepare
from simulator.stack import stack

PROBLEMS = ("tiny-gpt", "digits-mlp", "digits-conv")
RANKS = (2, 4)
TABLE = "tests.cases:ALL"
STEPS = 12
"""Of every run, of which the first do not count: see ``observing``."""


@dataclass(frozen=True)
class Cell:
    """One thing to measure: a strategy by the name it has in the table, a problem, a number of ranks."""

    name: str
    strategy: AnyStrategy
    problem: str
    ranks: int

    @property
    def workload(self) -> Problem:
        """The problem itself."""
        return workload(self.problem)

    @property
    def refused(self) -> str:
        """Why the strategy does not run on this; nothing if it does."""
        try:
            prepare(stack(self.strategy), self.workload.model(), self.ranks, STEPS, 0, learning=True)
        except ValueError as reason:
            return str(reason)
        return ""


def workload(name: str) -> Problem:
    """A problem by its name; ``"digits-mlp hidden=384"`` gives it knobs that are whole numbers."""
    first, *knobs = name.split()
    return problem(first, **{knob: int(value) for knob, value in (each.split("=") for each in knobs)})  # type: ignore[arg-type]


def rows_of(table: str) -> list[Any]:
    """The rows of a table ``"module:attribute"``, each with an ``id`` and a ``strategy``; from the current folder too.

    Raises ValueError where there is no such table.
    """
    module, _, attribute = table.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return list(getattr(import_module(module), attribute))
    except (ImportError, AttributeError, TypeError, ValueError) as reason:
        raise ValueError(
            f"a table of strategies is module:attribute, importable from the current folder; got {table!r} ({reason}):"
            f" start this in the project's own folder, whose table is {TABLE!r}"
        ) from None


def distinct(rows: Iterable[Any]) -> dict[str, AnyStrategy]:
    """The strategies of a table, each by the shortest id of its rows."""
    found: dict[str, tuple[str, AnyStrategy]] = {}
    for row in rows:
        known = found.get(str(stack(row.strategy)))
        if known is None or len(row.id) < len(known[0]):
            found[str(stack(row.strategy))] = (row.id, row.strategy)
    return dict(found.values())


def cells(
    strategies: dict[str, AnyStrategy],
    problems: Iterable[str] = PROBLEMS,
    ranks: Iterable[int] = RANKS,
    only: Iterable[str] = (),
) -> list[Cell]:
    """All combinations, those with the same number of ranks together; ``only`` the strategies of these names.

    Raises ValueError for a name that the table does not have.
    """
    wanted = list(only) or list(strategies)
    if unknown := [name for name in wanted if name not in strategies]:
        near = [other for name in unknown for other in get_close_matches(name, strategies)]
        hint = f"; near are {', '.join(near)}" if near else ""
        raise ValueError(f"a name is that of one of the table's {len(strategies)} strategies; got {unknown}{hint}")
    return [Cell(name, strategies[name], each, n) for n in ranks for each in problems for name in wanted]
