"""The report: what was predicted beside what was measured, as a page and pictures."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, median

from lab.machine import cores

from .rows import Row

TARGET, WORST = 0.15, 0.35


def write(rows: Sequence[Row], folder: Path, strategies: int, reasons: dict[str, str] | None = None) -> Path:
    """Write ``here.md`` and a scatter plot for each network into a folder; gives the path of the page.

    ``strategies``: how many the table has, measured or not; ``reasons``: why networks could not be measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = [_head(rows, strategies)]
    for network in dict.fromkeys(row.network for row in rows):
        mine = [row for row in rows if row.network == network]
        parts.append(_network(network, mine))
        if timed := [row for row in mine if row.error is not None]:
            name = f"here-{network}.png"
            _scatter(network, timed, folder / name)
            parts.append(f"![Predicted against measured seconds per step, {network}]({name})")
        parts += [_by_strategy(timed), _bytes(mine), _refused(mine)] if timed else [_refused(mine)]
    parts += [f"## {network}\n\nNot measured: {reason}" for network, reason in (reasons or {}).items()]
    page = folder / "here.md"
    page.write_text("\n\n".join(part for part in parts if part) + "\n")
    return page


def summary(rows: Iterable[Row]) -> str:
    """The errors of rows in one line."""
    errors = [row.error for row in rows if row.error is not None]
    if not errors:
        return "no rows"
    worst = max(errors, key=abs)
    return (
        f"{len(errors)} rows: mean absolute error {mean(map(abs, errors)):.1%}, median {median(map(abs, errors)):.1%},"
        f" worst {worst:+.1%}, bias {mean(errors):+.1%}"
    )


def _head(rows: Sequence[Row], strategies: int) -> str:
    measured = {row.name for row in rows}
    timed = [row for row in rows if row.error is not None]
    idle = [row for row in timed if row.idle]
    spread = mean([row.spread or 0.0 for row in idle] or [0.0])
    return f"""# Truth: this machine

Every strategy is predicted from calibration alone, then measured. Calibration times messages, collectives and empty
instructions between processes (`lab.prediction.measure_here`), and every computation of the program by itself, without
communication (`lab.profiling.profile`). What is predicted is how they meet: who waits for whom, what overlaps, what
shares cores and links. Nothing is fitted to the rows below.

{cores()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}.
Of the {strategies} strategies of the table {len(measured)} are here. Of {len(timed)} measured rows {len(idle)} were
measured while the machine was idle (other processes took less than 15 % of a core per core, and the host less than
2 %); the others are marked *busy*: their errors say little about the prediction.

{_idle(idle)}
- the machine itself: of the runs of one row, seconds apart, the slowest takes {spread:.1%} longer than the quickest on
  average, and rows measured again after minutes differ by more: little less can be asked of a prediction
- busy: {summary(row for row in timed if not row.idle)}
- target when idle: mean at most {TARGET:.0%}, worst at most {WORST:.0%}

`make truth` writes this page anew; `here.csv` beside it has every row."""


def _idle(rows: Sequence[Row]) -> str:
    """A line for each network."""
    lines = []
    for network in dict.fromkeys(row.network for row in rows):
        mine = [row for row in rows if row.network == network]
        errors = [abs(row.error) for row in mine if row.error is not None]
        near, far = (mean(error <= limit for error in errors) for limit in (TARGET, WORST))
        told = f"{near:.0%} within {TARGET:.0%}, {far:.0%} within {WORST:.0%}"
        lines.append(f"- {network}, idle: {summary(mine)}; {told}")
    return "\n".join(lines or ["- idle: no rows"])


def _network(network: str, rows: Sequence[Row]) -> str:
    lines = [f"## {network}", "", "| problem | ranks | rows | idle | mean error | median | worst | bias |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for problem, ranks in dict.fromkeys((row.problem, row.ranks) for row in rows):
        mine = [row for row in rows if (row.problem, row.ranks) == (problem, ranks) and row.error is not None]
        errors = [row.error for row in mine if row.error is not None]
        if errors:
            lines.append(
                f"| {problem} | {ranks} | {len(mine)} | {sum(bool(row.idle) for row in mine)} |"
                f" {mean(map(abs, errors)):.1%} | {median(map(abs, errors)):.1%} | {max(errors, key=abs):+.1%} |"
                f" {mean(errors):+.1%} |"
            )
    return "\n".join(lines) if len(lines) > 4 else f"## {network}"


def _by_strategy(rows: Sequence[Row]) -> str:
    """A line for each strategy, its cells side by side: predicted / measured in ms, and the error."""
    columns = list(dict.fromkeys((row.problem, row.ranks) for row in rows))
    found = {(row.name, row.problem, row.ranks): row for row in rows}
    lines = ["Milliseconds per step, predicted / measured, and the error; † busy.", ""]
    lines.append("| strategy | " + " | ".join(f"{problem}, {ranks}" for problem, ranks in columns) + " |")
    lines.append("|---" * (1 + len(columns)) + "|")
    for name in sorted({row.name for row in rows}):
        cells = [_cell(found.get((name, *column))) for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(row: Row | None) -> str:
    if row is None or row.error is None or row.predicted is None or row.measured is None:
        return ""
    return f"{1e3 * row.predicted:.3g} / {1e3 * row.measured:.3g} {row.error:+.0%}{'' if row.idle else '†'}"


def _bytes(rows: Sequence[Row]) -> str:
    counted = [row for row in rows if row.uncounted is not None and row.stated]
    if not counted:
        return ""
    lines = ["Bytes per step that all ranks state, and the kernel's counters without headers.", ""]
    lines += ["| problem | ranks | strategy | stated | counted | difference |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row.problem} | {row.ranks} | {row.name} | {row.stated:,.0f} | {row.counted:,.0f} | {row.uncounted:+.2%} |"
        for row in counted
    ]
    lines += [
        "",
        "A reduce-scatter states what its algorithm needs, (n−1)/n of the value; gloo's moves as many bytes as an",
        "all-reduce, twice that, so strategies that shard gradients are counted with more than they state.",
    ]
    return "\n".join(lines)


def _refused(rows: Sequence[Row]) -> str:
    """What was not measured, and why: those with one reason together."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.error is None:
            found.setdefault(row.remark, []).append(f"{row.name} ({row.problem}, {row.ranks})")
    if not found:
        return ""
    count = sum(map(len, found.values()))
    lines = [f"<details><summary>{count} combinations without times, and why</summary>", ""]
    lines += [f"- {reason}: {', '.join(names)}" for reason, names in found.items()]
    return "\n".join([*lines, "", "</details>"])


def _scatter(network: str, rows: Sequence[Row], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.5, 5), layout="constrained")
    points = [(row.problem, row.ranks, row.measured or 0.0, row.predicted or 0.0) for row in rows]
    for problem, ranks in dict.fromkeys(point[:2] for point in points):
        mine = [point for point in points if point[:2] == (problem, ranks)]
        axes.scatter([point[2] for point in mine], [point[3] for point in mine], s=10, label=f"{problem}, {ranks}")
    ends = [min(min(point[2:]) for point in points), max(max(point[2:]) for point in points)]
    axes.plot(ends, ends, color="black", linewidth=0.8)
    low, high = ([factor * end for end in ends] for factor in (1 - WORST, 1 + WORST))
    axes.fill_between(ends, low, high, color="0.9", zorder=0)
    axes.set(xscale="log", yscale="log", xlabel="measured [s per step]", ylabel="predicted [s per step]", title=network)
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
