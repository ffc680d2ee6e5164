"""Chrome traces: a Run as Perfetto and chrome://tracing show it, one process per rank and one thread per stream.

The format: "Trace Event Format", https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .metrics import began
from .runfile import replacing
from .spans import COMPUTE, kind

if TYPE_CHECKING:
    from .run import Run

COUNTERS = ("loss", "staleness")


def write(run: Run, path: str | os.PathLike[str]) -> None:
    """Write a run as JSON to exactly this path: one event per line, times in microseconds from the run's start."""
    head = json.dumps({"displayTimeUnit": "ms", "otherData": {"strategy": run.strategy, "clock": run.clock}})
    with replacing(path) as file:
        file.write(head[:-1].encode() + b', "traceEvents": [')
        for number, event in enumerate(events(run)):
            file.write((",\n" if number else "\n").encode() + json.dumps(event).encode())
        file.write(b"\n]}\n")


def events(run: Run) -> Iterator[dict[str, Any]]:
    """The events of a run, one after another: names, spans, counters."""
    origin = began(run)
    threads = {stream: 1 + place for place, stream in enumerate(sorted(run.spans.streams, key=_compute_first))}
    yield from _names(run, threads)
    yield from _spans(run, threads, origin)
    yield from _counters(run, origin)


def _compute_first(stream: str) -> tuple[bool, str]:
    return stream != COMPUTE, stream


def _names(run: Run, threads: dict[str, int]) -> Iterator[dict[str, Any]]:
    used = dict.fromkeys((span.rank, span.stream) for span in run.spans)
    for rank, many in run.stands_for.items():
        role = "" if rank in run.workers else " (server)"
        role += f" and {many - 1} alike" if many > 1 else ""
        yield {"ph": "M", "pid": rank, "name": "process_name", "args": {"name": f"rank {rank}{role}"}}
        yield {"ph": "M", "pid": rank, "name": "process_sort_index", "args": {"sort_index": rank}}
    for rank, stream in used:
        place = {"ph": "M", "pid": rank, "tid": threads[stream]}
        yield place | {"name": "thread_name", "args": {"name": stream}}
        yield place | {"name": "thread_sort_index", "args": {"sort_index": threads[stream]}}


def _spans(run: Run, threads: dict[str, int], origin: float) -> Iterator[dict[str, Any]]:
    for span in run.spans:
        # Both ends in whole nanoseconds, as viewers count: rounding a duration by itself could make spans overlap.
        start, end = _nanoseconds(span.start - origin), _nanoseconds(span.end - origin)
        yield {
            "ph": "X",
            "pid": span.rank,
            "tid": threads[span.stream],
            "name": span.instruction,
            "cat": kind(span.instruction),
            "ts": start / 1000,
            "dur": (end - start) / 1000,
            "args": {"step": span.step, "bytes": span.bytes},
        }


def _counters(run: Run, origin: float) -> Iterator[dict[str, Any]]:
    for sample in run.samples:
        # JSON has no word for a loss that is not finite.
        if sample.name in COUNTERS and math.isfinite(sample.value):
            ts = _nanoseconds(sample.time - origin) / 1000
            args = {sample.name: sample.value}
            yield {"ph": "C", "pid": sample.rank, "name": sample.name, "ts": ts, "args": args}


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
