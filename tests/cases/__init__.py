"""The table of strategies. ``test_laws.py`` holds every row to the same laws.

A row says on which numbers of ranks (up to 4) its strategy runs, what it learns, what each rank sends per step and how
long a step takes where communication is free. A law that does not cover a row stands in ``outside`` with the reason.
Each family of strategies has a file of rows: ``SYNCHRONOUS`` ones do the same whenever they run, ``REPLAYED`` ones
depend on who comes first.
"""

from __future__ import annotations

from importlib import import_module

from .problems import problem
from .table import Case

FAMILIES = (
    "basic", "collectives", "compression", "gossip", "heterogeneous",
    "local", "mixed", "models", "pipelines", "sharing",
)  # fmt: skip
"""The files of rows."""

_files = [import_module(f".{name}", __package__) for name in FAMILIES]
SYNCHRONOUS: tuple[Case, ...] = tuple(row for file in _files for row in getattr(file, "SYNCHRONOUS", ()))
"""Strategies that do the same whenever they run, and give what a single process gives, unless they say why not."""
REPLAYED: tuple[Case, ...] = tuple(row for file in _files for row in getattr(file, "REPLAYED", ()))
"""Strategies whose outcome depends on who comes first: a virtual run equals the real one that it replays."""
ALL = SYNCHRONOUS + REPLAYED

__all__ = ["ALL", "REPLAYED", "SYNCHRONOUS", "Case", "problem"]
