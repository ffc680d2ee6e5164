"""The rows of ``catalogue.csv``, and what is read from their columns."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

Row = Mapping[str, str]


@cache
def rows() -> dict[str, Row]:
    """All of them, by key."""
    text = files(__package__).joinpath("catalogue.csv").read_text(encoding="utf-8")
    return {row["key"]: row for row in csv.DictReader(text.splitlines())}


def whole(row: Row, name: str) -> int:
    """A whole number; 0 where there is none."""
    return int(row[name]) if row[name] else 0


def flops(row: Row) -> float:
    """FLOP of a forward pass, per unit that the row counts in."""
    return float(row["forward_FLOP"]) if row["forward_FLOP"] else 2 * float(row["forward_MAC"])


def shape(row: Row) -> dict[str, Any]:
    """The sizes that every transformer has."""
    names = {"sequence": "sequence_tokens", "vocab": "vocabulary"}
    return {name: whole(row, names.get(name, name)) for name in ("layers", "hidden", "heads", "sequence", "vocab")}
