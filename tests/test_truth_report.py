"""The committed report on published runs says what the program predicts today: a stale one fails here."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from lab.truth.errors import errors
from lab.truth.files import FILES, File
from lab.truth.rows import Row

REPORT = Path(__file__).parent.parent / "docs" / "truth" / "published.md"
SAMPLE = 2
"""Rows of each file that are predicted here: those with least to simulate."""

pytestmark = pytest.mark.skipif(not REPORT.exists(), reason="make truth writes the report")


@cache
def chapters() -> dict[str, str]:
    """The text below every headline, that before the first under no name."""
    first, *rest = re.split(r"^## ", REPORT.read_text(), flags=re.MULTILINE)
    return {"": first} | dict(text.split("\n", 1) for text in rest)  # type: ignore[misc]


def listed(file: File) -> list[tuple[str, float, float, float]]:
    """The rows of a file in the report: name, measured, predicted, error."""
    number = r"([-+.\de]+)"
    text = chapters().get(file.title, "")
    found = re.findall(rf"^\| ([^|]+) \| {number} \| {number} \| {number}% \|$", text, re.MULTILINE)
    return [(name, float(measured), float(guess), float(error) / 100) for name, measured, guess, error in found]


def quickest(file: File) -> list[tuple[int, Row]]:
    """Some rows, with their places in the file."""
    return sorted(enumerate(file.rows()), key=lambda at_row: at_row[1].setup.work)[:SAMPLE]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_report_is_what_the_program_predicts(file: File) -> None:
    """To the four digits that are printed."""
    shown = listed(file)
    assert [(name, measured) for name, measured, *_ in shown] == [
        (row.name, pytest.approx(row.measured, rel=1e-3)) for row in file.rows()
    ]
    for at, row in quickest(file):
        assert row.setup.seconds() == pytest.approx(shown[at][2], rel=1e-3), f"{row.name}: make truth"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_overview_sums_up_the_rows(file: File) -> None:
    """Their number and mean error, on which thresholds stand."""
    shown = listed(file)
    line = re.search(rf"^\| {re.escape(file.title)} \| zero-shot \| (\d+) \| ([\d.]+)%", chapters()[""], re.MULTILINE)
    assert line is not None, f"no line for {file.title}: make truth"
    wrong = errors([guess for _, _, guess, _ in shown], [measured for _, measured, *_ in shown])
    assert int(line[1]) == len(shown)
    assert sum(map(abs, wrong)) / len(wrong) == pytest.approx(float(line[2]) / 100, abs=2e-3)
    assert wrong == [pytest.approx(error, abs=2e-3) for *_, error in shown]
