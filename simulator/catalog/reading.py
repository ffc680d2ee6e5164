"""Reads files of facts: a CSV with a column ``key``, or a TOML with a table for each key. Every entry has a source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from io import StringIO
from math import inf
from pathlib import Path
from typing import Any

from .. import checks
from .units import quantity

HERE = Path(__file__).parent
OWN = ("devices", "links", "nccl", "grids")


@dataclass(frozen=True)
class Entry:
    """What is known of one thing. ``numbers`` are in SI units, per second and per direction; prices are USD per hour.

    ``unconfirmed``: which of the numbers nobody has looked up in their source.
    """

    key: str
    numbers: Mapping[str, float]
    texts: Mapping[str, str]

    def __getitem__(self, name: str) -> float:
        if name not in self.numbers:
            raise ValueError(f"nothing is known of the {name} of {self.key!r}: give a device or a link of your own")
        return self.numbers[name]

    def get(self, name: str) -> float | None:
        """A number, or None where nobody knows it."""
        return self.numbers.get(name)

    @property
    def unconfirmed(self) -> tuple[str, ...]:
        """The names of numbers from memory."""
        return tuple(self.texts.get("unconfirmed", "").split())


@cache
def own(name: str) -> dict[str, Entry]:
    """One of the project's own files."""
    return read(HERE / f"{name}.csv")


def read(path: str | Path) -> dict[str, Entry]:
    """The entries of a file by their keys. Raises ValueError for unknown keys, missing units and absent sources."""
    path = Path(path)
    if path.suffix not in (".toml", ".csv"):
        raise ValueError(f"a catalogue is a .toml or a .csv file; got {str(path)!r}")
    if not path.is_file():
        raise ValueError(f"a catalogue is a file that is there; got {str(path)!r}: see where you are with Path.cwd()")
    found: dict[str, Entry] = {}
    for key, row in _tables(path) if path.suffix == ".toml" else _rows(path):
        if key in found:
            raise ValueError(f"{path.name}: every key stands once; {key!r} stands twice")
        found[key] = entry(key, row, f"{path.name}, {key!r}")
    return found


def entry(key: str, row: Mapping[str, Any], where: str) -> Entry:
    """One row, checked."""
    numbers: dict[str, float] = {}
    texts: dict[str, str] = {}
    for column, value in row.items():
        name, factor = quantity(column, where)
        if name in numbers or name in texts:
            raise ValueError(f"{where}: {name} is given twice")
        if not factor:
            texts[name] = str(value)
        else:
            numbers[name] = checks.number(column, _number(value, column, where), least=0, of=where) * factor
    for name in ("kind", "source"):
        if not texts.get(name, "").strip():
            raise ValueError(f"{where}: {name} is absent; every entry says its kind and the source of its numbers")
    line = numbers.get("link_bandwidth", inf)
    if not 0 < line >= numbers.get("link_achieved", 0.0):
        told = f"{line:g} and {numbers.get('link_achieved', 0.0):g} B/s"
        raise ValueError(f"{where}: link_bandwidth is above 0, and link_achieved is what data get of it; got {told}")
    if "price" in numbers and not (texts.get("price_date") and texts.get("price_source")):
        raise ValueError(f"{where}: a price has a price_date and a price_source; got {texts}")
    if unknown := set(texts.get("unconfirmed", "").split()) - set(numbers):
        raise ValueError(f"{where}: unconfirmed names numbers of the entry; it has no {', '.join(sorted(unknown))}")
    return Entry(key, numbers, texts)


def _number(value: object, column: str, where: str) -> object:
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{where}: {column} is a number; got {value!r}") from None


def _tables(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import tomllib

    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of tomllib, and of UTF-8
        raise ValueError(f"{path.name} is no TOML: {error}: mend it there") from None
    for key, table in tables.items():
        if not isinstance(table, dict):
            raise ValueError(f"{path.name}: every entry is a table, [my-device]; got {key} = {table!r}")
        yield key, table


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import csv

    try:
        text = path.read_text(encoding="utf-8-sig")  # as spreadsheets write it
    except ValueError as error:
        raise ValueError(f"{path.name} is no text in UTF-8: {error}: save it as such") from None
    rows = csv.DictReader(StringIO(text, newline=""))
    for column, many in Counter(filter(None, rows.fieldnames or ())).items():
        if many > 1:
            raise ValueError(f"{path.name}: every column stands once; {column!r} stands twice")
    for row in rows:
        key = row.pop("key", None)
        if not key or None in row:
            raise ValueError(f"{path.name}: every row has a key, and as many cells as there are columns; got {row}")
        yield key, {column: cell for column, cell in row.items() if cell not in ("", None)}
