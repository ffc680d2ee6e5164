"""Published statistics of failures, as data: each row with its unit, its source and whether that was seen."""

from __future__ import annotations

COLUMNS = ["system", "quantity", "unit", "value", "status", "source"]


def published(system: str) -> dict[str, float]:
    """What was published about the failures of one system, by quantity; units and sources stand in published.csv.

    Raises ValueError for unknown systems.

        >>> facts = published("llama3-405b")
        >>> facts["unexpected interruptions"], facts["time"]
        (419.0, 54.0)
    """
    rows = [row for row in facts() if row["system"] == system]
    if not rows:
        known = dict.fromkeys(row["system"] for row in facts())
        raise ValueError(f"published systems are {', '.join(known)}; got system={system!r}")
    return {row["quantity"]: float(row["value"]) for row in rows}


def facts() -> list[dict[str, str]]:
    """Every row of published.csv as text. Raises ValueError for rows without a value, unit or source."""
    import csv
    from importlib.resources import files

    text = files(__package__).joinpath("published.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    for row in rows:
        if list(row) != COLUMNS or not all(row.values()) or row["status"] not in ("confirmed", "unconfirmed"):
            raise ValueError(f"a published fact has {', '.join(COLUMNS)}, none of them empty; got {row}")
    return rows
