"""A row of the report, and the file in which rows are kept, so that what was interrupted goes on."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

Key = tuple[str, str, int, str]


@dataclass(frozen=True)
class Row:
    """One strategy on one network, with one problem and number of ranks.

    ``predicted`` and ``measured`` are seconds per step, ``spread`` by how much runs differed, as a share; ``busy`` the
    cores that other processes used meanwhile, ``idle`` whether that was little enough, ``load`` the load average and
    ``steal`` the share of time that the host took. ``stated`` [B] is what all ranks say they sent in a step, and
    ``counted`` what the kernel did (None where it was not looked). ``remark``: why there are no times, if there are
    none.
    """

    network: str
    problem: str
    ranks: int
    name: str
    strategy: str
    predicted: float | None = None
    measured: float | None = None
    spread: float | None = None
    busy: float | None = None
    idle: bool | None = None
    load: float | None = None
    steal: float | None = None
    stated: float | None = None
    counted: float | None = None
    remark: str = ""

    @property
    def key(self) -> Key:
        """What tells it from other rows."""
        return self.network, self.problem, self.ranks, self.name

    @property
    def error(self) -> float | None:
        """How much too long the prediction is, as a share of what was measured."""
        return None if not self.predicted or not self.measured else self.predicted / self.measured - 1

    @property
    def uncounted(self) -> float | None:
        """How many more bytes the kernel counted than were stated, as a share."""
        return None if not self.stated or self.counted is None else self.counted / self.stated - 1


class Store:
    """Rows in a CSV file, added one by one."""

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> list[Row]:
        """All rows; of several with one key the last."""
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            rows = [_row(record) for record in csv.DictReader(file)]
        return list({row.key: row for row in rows}.values())

    def add(self, row: Row) -> None:
        """Write one more row at the end."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Row)])
            if new:
                writer.writeheader()
            writer.writerow(_rounded(row))

    def write(self, rows: Iterable[Row]) -> None:
        """Write these rows and no others."""
        self.path.unlink(missing_ok=True)
        for row in rows:
            self.add(row)


def _rounded(row: Row) -> dict[str, object]:
    """What a file keeps: six digits are more than was measured."""
    return {name: float(f"{value:.6g}") if type(value) is float else value for name, value in asdict(row).items()}


def _row(record: dict[str, str]) -> Row:
    texts = {name: record[name] for name in ("network", "problem", "name", "strategy", "remark")}
    numbers = {
        name: float(record[name]) if record[name] else None
        for name in ("predicted", "measured", "spread", "busy", "load", "steal", "stated", "counted")
    }
    idle = {"True": True, "False": False}.get(record["idle"])
    return Row(**texts, **numbers, ranks=int(record["ranks"]), idle=idle)  # type: ignore[arg-type]
