"""``python -m lab.truth here``: measure what is not measured yet, and write the report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from . import loopback, report, shaped
from .cells import PROBLEMS, RANKS, TABLE, Cell, cells, distinct, rows_of
from .observing import MOST
from .rows import Row, Store

NETWORKS = (loopback.NETWORK, *shaped.RATES)
FEW = (
    "data", "data-bucket-per-block", "pipeline-1f1b-5", "server", "async", "sharded-1", "sharded-3", "written-ring",
    "local-sgd-2", "diloco-2", "ad-psgd", "fedavg-1",
)  # fmt: skip
"""What is measured on slow networks, where steps are long, if nothing else is asked for."""
LARGE = "digits-mlp hidden=384"
"""The problem there: 1.3 MB of gradients and little work, so that the network is what binds."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report. The exit status is 0 when all was done, 2 after a mistake, told in words."""
    options = _parser().parse_args(arguments)
    try:
        return run(options)
    except ValueError as mistake:
        print(mistake, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lab.truth here", description="Predict and measure strategies on this machine.",
        epilog="Rows go to here.csv as they are measured; what is there already is not measured again.",
    )  # fmt: skip
    parser.add_argument("--table", default=TABLE, help="module:attribute of rows with an id and a strategy")
    parser.add_argument("--only", nargs="*", default=[], metavar="ID", help="strategies by the ids of their rows")
    parser.add_argument("--problems", nargs="*", metavar="NAME", help=f"{', '.join(PROBLEMS)}; elsewhere {LARGE}")
    parser.add_argument("--ranks", nargs="*", type=int, default=RANKS)
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--runs", type=int, default=MOST, help="runs of a row at most, until two are alike")
    parser.add_argument("--out", type=Path, default=Path("docs/truth"))
    parser.add_argument("--fresh", action="store_true", help="measure rows again that are there already")
    parser.add_argument("--busy", action="store_true", help="measure again those that were measured on a busy machine")
    parser.add_argument("--report", action="store_true", help="only write the page from the rows that are there")
    return parser


def run(options: argparse.Namespace) -> int:
    """What the options ask for."""
    store, reasons = Store(options.out / "here.csv"), dict[str, str]()
    strategies = distinct(rows_of(options.table))
    if not options.report:
        for network in options.networks:
            wanted = _cells(network, options, strategies)
            reasons |= _measure(network, _missing(network, wanted, store, options), store, options.runs)
    rows = store.read()
    page = report.write(rows, options.out, len(strategies), reasons)
    print(page, report.summary(row for row in rows if row.idle), sep=": idle, ")
    return 0


def _cells(network: str, options: argparse.Namespace, strategies: dict) -> list[Cell]:  # type: ignore[type-arg]
    if network == loopback.NETWORK:
        return cells(strategies, options.problems or PROBLEMS, options.ranks, options.only)
    few = [name for name in FEW if name in strategies]
    return cells(strategies, options.problems or (LARGE,), options.ranks, options.only or few)


def _missing(network: str, wanted: Iterable[Cell], store: Store, options: argparse.Namespace) -> list[Cell]:
    """What is to be measured."""
    known = {row.key: row for row in store.read()}
    found = []
    for cell in wanted:
        row = known.get((network, cell.problem, cell.ranks, cell.name))
        again = row is None or options.fresh or (options.busy and row.error is not None and not row.idle)
        found += [cell] if again else []
    return found


def _measure(network: str, wanted: Sequence[Cell], store: Store, most: int) -> dict[str, str]:
    """Measure and store; gives the reason where a network cannot be had."""
    if not wanted:
        return {}
    if network != loopback.NETWORK and (reason := shaped.forbidden()):
        return {network: reason}
    rows: Iterator[Row] = (
        loopback.measure(wanted, most) if network == loopback.NETWORK else shaped.measure(network, wanted, most)
    )
    for row in tqdm(rows, desc=network, total=len(wanted), unit="row"):
        store.add(row)
    return {}
