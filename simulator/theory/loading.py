"""Closed forms of data loading: when computation waits for data."""

from __future__ import annotations


def loaded(steps: int, compute: float, load: float, workers: int = 1) -> float:
    """Makespan of some steps whose data are loaded ahead, each step by one of w workers in turn [s].

    ``compute`` is C seconds of computation per step, ``load`` L seconds of loading; workers need not wait to begin the
    next step, as long as each may be a step ahead. Step s begins at L + max(sC, qL + (s-qw)C) with q = s // w: when the
    computation before it is done, or, as w workers load in waves, when its wave has come. So a step takes max(C, L/w)
    in the long run; without a loader it takes C + L.

    >>> loaded(3, compute=1.0, load=4.0), loaded(3, compute=1.0, load=4.0, workers=4), loaded(3, compute=4.0, load=1.0)
    (13.0, 7.0, 13.0)
    """
    last = steps - 1
    waves = last // workers
    return load + max(last * compute, waves * load + (last - waves * workers) * compute) + compute
