"""``sweep``: one simulation for every combination of lists, as a table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

from .. import checks
from .answers import Answer, answer, row
from .bar import bar
from .cache import Cache
from .cases import Case, cases

if TYPE_CHECKING:
    import pandas as pd

AHEAD = 4
"""Tasks per worker that are handed out at once, where a backend gives results only all together."""
Task = tuple[int, Case, int]
"""Number, case and seed."""


def sweep(
    strategies: object,
    models: object,
    clusters: object,
    *,
    seeds: int | Sequence[int] = 1,
    cache: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    progress: bool | None = None,
    **lists: object,
) -> pd.DataFrame:
    """Simulate every strategy with every model on every cluster, with every value of every knob: one row each.

    - ``strategies``, ``models``, ``clusters``: lists of objects, or of names such as "DataParallel", "gpt3-175b" and
      "dgx-a100". A single thing is a list of one.
    - ``lists``: of values for knobs of ``simulate`` (``batch``, ``dtype``, ``recompute``, ``noise``, ``detail``, …; of
      ``steps`` there are 2 unless told); ``nodes`` or ``ranks`` of clusters given by name; and ``device`` and
      ``algorithm`` of any cluster, instead of its own.
    - ``seeds``: a list of them, or how many. With several, each number is the mean, and columns that end in ``_low``
      and ``_high`` hold its 95 % interval (Student's t, cut at zero), NaN where all seeds agree, as without noise.
    - ``cache``: a directory that keeps every result, by content, as soon as it is there: a sweep that was interrupted
      goes on where it ended. None: nothing is kept.
    - ``jobs``: processes; None: as ``joblib.parallel_config`` says, which may name Dask or Ray, else this one alone.
    - ``progress``: show a bar; None: in terminals and notebooks.

    Columns: strategy, model, cluster, ranks and the knobs; per step ``step_time`` [s], ``exposed_communication`` [s,
    mean of workers], ``bytes_sent`` [B, of the busiest rank], ``cost`` [USD], ``energy`` [J]; ``throughput``
    [samples/s], ``mfu``, ``hfu``, ``bubble``, ``peak_memory`` [B, of the fullest rank]; ``error``, which is "" or says
    why a combination cannot be. Unknown numbers are NaN. ``attrs`` says how many results were "computed" and "found".

    Raises ValueError for names and words that nobody knows, lists that nobody reads, and empty ones.

    >>> from simulator import Model, cluster
    >>> table = sweep(["Single", "DataParallel"], Model.of_times(blocks=2), [cluster("ideal", ranks=n) for n in (1, 2)])
    >>> table[["strategy", "ranks", "step_time"]]
             strategy  ranks  step_time
    0        Single()      1        6.0
    1        Single()      2        NaN
    2  DataParallel()      1        6.0
    3  DataParallel()      2        6.0
    """
    import pandas as pd

    all_cases, chances, kept = cases(strategies, models, clusters, lists), seeds_of(seeds), Cache(cache)
    pairs = [(case, seed) for case in all_cases for seed in chances]
    keys = [case.key(seed) for case, seed in pairs] if kept.folder is not None else [""] * len(pairs)
    answers: list[Any] = [kept.find(key) for key in keys]
    missing = [(number, *pair) for number, pair in enumerate(pairs) if answers[number] is None]
    for number, found in _shown(_computed(missing, jobs), len(pairs), len(missing), progress):
        kept.keep(keys[number], found)
        answers[number] = found
    several = len(chances)
    rows = [
        {**case.columns(), **row(answers[at * several : (at + 1) * several])} for at, case in enumerate(all_cases)
    ]
    table = pd.DataFrame(rows)
    table.attrs |= {"computed": len(missing), "found": len(pairs) - len(missing)}
    return table


def seeds_of(seeds: int | Sequence[int]) -> list[int]:
    """A list of seeds, or as many as there shall be."""
    if isinstance(seeds, Integral):
        return list(range(checks.whole("seeds", seeds, least=1)))
    found = [checks.whole("seed", seed) for seed in checks.several("seeds", seeds, "a list of seeds, or how many")]
    if not found:
        raise ValueError("every list of a sweep has something in it; got seeds=[]")
    return found


def _computed(tasks: Sequence[Task], jobs: int | None) -> Iterator[tuple[int, Answer]]:
    """The answers, as they come."""
    from joblib import Parallel, delayed

    if jobs is not None and (type(jobs) is not int or jobs == 0):
        raise ValueError(f"jobs is a number of processes, or -1 for one per core; got jobs={jobs!r}")
    try:
        parallel = Parallel(n_jobs=jobs, return_as="generator_unordered")
        together = len(tasks)
    except ValueError:  # the backend cannot
        parallel = Parallel(n_jobs=jobs)
        together = max(1, AHEAD * parallel.n_jobs)
    for first in range(0, len(tasks), max(1, together)):
        yield from parallel(delayed(_answered)(*task) for task in tasks[first : first + together])


def _answered(number: int, case: Case, seed: int) -> tuple[int, Answer]:
    return number, answer(case, seed)


def _shown(
    answers: Iterable[tuple[int, Answer]], total: int, missing: int, progress: bool | None
) -> Iterable[tuple[int, Answer]]:
    """The same, with a bar."""
    return bar("sweep", progress, iterable=answers, total=total, initial=total - missing, unit="run")  # type: ignore
