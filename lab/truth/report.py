"""The report on published runs: tables and a scatter plot of each file, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from . import memory
from .errors import Errors, errors
from .files import FILES, File
from .fitting import Fit, leave_one_out, parts
from .nccl import Collective, all_reduces
from .predicting import Predictions
from .rows import Row
from .scatter import scatter

INTRODUCTION = (Path(__file__).parent / "published.md").read_text()
"""What stands before the tables."""
MEMORY = """# Memory beside published figures

Written by `make truth`; do not edit. Korthikanti et al. 2022 (arXiv:2205.05198), figures 1 and 7: bytes per GPU of four
models, in GiB, as profiled there. Predicted is what `simulator.memory` reads from the programs; nothing was fitted. Of
layers alone, as the paper counts; the last column has what the vocabulary adds on the first stage.
"""
Line = tuple[str, str, Errors]
"""Of the overview: a file, how it was predicted, and how wrong that is."""


def write(folder: Path, files: Sequence[File] = FILES) -> None:
    """Predict every row and write ``published.md`` and its pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    summary: list[Line] = []
    chapters: list[str] = []
    for file in files:
        found = Predictions(file.rows())
        lines, text = chapter(file, found)
        summary += lines
        chapters.append(text)
        scatter(found.rows, found.of(), file.title, folder / f"{file.name}.png", file.unit)
    text = "\n".join([INTRODUCTION, overview(summary), *chapters, of_collectives(list(all_reduces()))])
    (folder / "published.md").write_text(text)
    (folder / "memory.md").write_text(f"{MEMORY}\n{memory.report()}\n")


def chapter(file: File, found: Predictions) -> tuple[list[Line], str]:
    """The lines of a file in the overview, and its own tables."""
    lines: list[Line] = [(file.title, "zero-shot", found.errors())]
    texts = [f"## {file.title}\n\n{file.about}\n\n![predicted over measured]({file.name}.png)\n"]
    if len(file.knobs) > 1:
        half = parts(found, file.knobs, file.every)
        lines.append((file.title, f"calibrated on {half.fitted} of its rows, tested on the rest", half.errors))
        texts.append(calibration([half, *leave_one_out(found, file.knobs, file.every)]))
    return lines, "\n".join([*texts, listing(found.rows, found.of(), file.unit)])


def overview(lines: Iterable[Line]) -> str:
    """One line for each file and way of calibration."""
    head = ["| file | how | rows | mean | median | largest | bias |", "|---|---|---:|---:|---:|---:|---:|"]
    return "\n".join([*head, *(f"| {title} | {how} {_cells(found)}" for title, how, found in lines), ""])


def calibration(fits: Iterable[Fit]) -> str:
    """What was fitted, without which rows, and how wrong these come out."""
    head = [
        "Fitted without the rows in the first column, tested on them:\n",
        "| tested on | fitted on | dispatch [µs] | share of peak | rows | mean | median | largest | bias |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines = [
        f"| {fit.tested} | {fit.fitted} rows | {fit.knobs.dispatch * 1e6:.0f} | {fit.knobs.efficiency or 'catalogue'} "
        + _cells(fit.errors)
        for fit in fits
    ]
    return "\n".join([*head, *lines, ""])


def listing(rows: Sequence[Row], predicted: Sequence[float], unit: str = "s") -> str:
    """Every row."""
    head = [
        "Every row, zero-shot:\n",
        f"| run | measured [{unit}] | predicted [{unit}] | error |",
        "|---|---:|---:|---:|",
    ]
    wrong = errors(predicted, [row.measured for row in rows])
    lines = [
        f"| {row.name} | {row.measured:.4g} | {guess:.4g} | {error:+.1%} |"
        for row, guess, error in zip(rows, predicted, wrong)
    ]
    return "\n".join([*head, *lines, ""])


def of_collectives(found: Sequence[Collective]) -> str:
    """Errors of all-reduces by their size, the mean over 2 to 8 ranks."""
    head = [
        "## NCCL's all-reduce inside of a machine of A100s\n",
        "From the tables with which NCCL itself chooses an algorithm; nothing is fitted. Mean over 2 to 8 GPUs:\n",
        "| size | mean error | bias |",
        "|---:|---:|---:|",
    ]
    lines = []
    for size in sorted({one.size for one in found}):
        some = [one for one in found if one.size == size]
        wrong = Errors.of([one.predicted for one in some], [one.measured for one in some])
        lines.append(f"| {size // 2**20} MiB | {wrong.mean:.1%} | {wrong.bias:+.1%} |")
    return "\n".join([*head, *lines, ""])


def _cells(found: Errors) -> str:
    return f"| {found.count} | {found.mean:.1%} | {found.median:.1%} | {found.largest:.1%} | {found.bias:+.1%} |"
