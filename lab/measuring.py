"""Measure how long collectives take between the processes of this machine, by type, members and size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from simulator.cluster import Cluster
from simulator.collectives import critical_bytes, rounds
from simulator.problem import Problem
from simulator.program import AllReduce, Compute
from simulator.run import Run
from simulator.spans import COMPUTE, Span
from simulator.stack import stack
from simulator.work import Measured

from .meetings import BESIDE, KINDS, SIZES, Meet, Members, after, before, nothing, ready, waited
from .probing import WARM_UP
from .running import execute

STEPS = 30
QUICK = 0.3
"""The quantile of the measured times that is called quick."""


@dataclass(frozen=True)
class Costs:
    """What the interpreter takes of a rank's own time [s], and copying of its core.

    - ``instruction``: a computation besides its maths. ``start``, ``wait``: a Start, and a Wait for what is done.
    - ``copying``: the share of a core that a rank takes while many bytes move.
    """

    instruction: float = 0.0
    start: float = 0.0
    wait: float = 0.0
    copying: float = 0.0


def measure_collectives(cluster: Cluster, problem: Problem, seed: int = 0) -> tuple[Cluster, Costs]:
    """The cluster with the times of collectives among all or half of its ranks, and what the interpreter takes.

    The bandwidth becomes that of large collectives, if it is less than that of messages. What latency and bandwidth do
    not explain of a collective becomes what comes before its first byte.
    """
    ranks = cluster.ranks
    if ranks == 1:
        return cluster, Costs()
    runs = {
        ranks // groups: execute(stack(Meet(groups), Members()), problem, ranks, STEPS, seed, progress=False)
        for groups in range(1, ranks // 2 + 1)
        if ranks % groups == 0
    }
    cluster = _slower(cluster, _bandwidth(runs[ranks], ranks))
    tables = tuple(table for members, run in runs.items() for table in _tables(run, members, cluster))
    delays = _delays(runs[ranks], ranks)
    alone = _usual(_durations(runs[ranks], "AllReduce", ranks)[SIZES[0]]) + float(np.mean(delays))
    beside = max(0.0, float(np.mean(_beside(runs[ranks]))) - alone)
    overheads = replace(cluster.overheads, collectives=tables, collective_delays=delays, beside=beside)
    return replace(cluster, overheads=overheads), _costs(runs[ranks])


def _costs(run: Run) -> Costs:
    empty = _between(run, nothing, nothing)
    start, wait = _between(run, before, after), _between(run, ready, waited)
    return Costs(empty, max(0.0, start - empty), max(0.0, wait - empty), _copying(run))


def _beside(run: Run) -> list[float]:
    """Seconds of each smallest all-reduce on a stream, beside computation: from the last start to the last end."""
    lanes = defaultdict(list)
    for span in run.spans:
        if span.stream == BESIDE and span.step >= WARM_UP:
            lanes[span.rank].append(span)
    return [max(s.end for s in each) - max(s.start for s in each) for each in zip(*lanes.values())]


def _slower(cluster: Cluster, bandwidth: float) -> Cluster:
    """The same with less bandwidth, if it has more; a message takes as long as before, if it can."""
    before = cluster.bandwidth(cluster.route(0, 1)[0])
    if bandwidth >= before:
        return cluster
    spent = max(0.0, cluster.overheads.message_byte + 1 / before - 1 / bandwidth)
    overheads = replace(cluster.overheads, message_byte=spent)
    return Cluster.flat(cluster.ranks, bandwidth, cluster.latency(0, 1), cluster.device, cluster.name, overheads)


def _bandwidth(run: Run, members: int) -> float:
    """Of large all-reduces: what more bytes take longer."""
    times = _durations(run, "AllReduce", members)
    many, few = SIZES[-1], SIZES[-3]
    longer = max(_usual(times[many]) - _usual(times[few]), 1e-9)
    return critical_bytes(AllReduce, members, 4.0 * (many - few)) / longer


def _copying(run: Run) -> float:
    """CPU seconds per second of large all-reduces and rank, at most 1."""
    by_rank = defaultdict(list)
    for sample in run.samples:
        if sample.name == "cpu" and sample.step >= WARM_UP:
            by_rank[sample.rank].append((sample.time, sample.value))
    shares = [
        (after[1] - before[1]) / (after[0] - before[0])
        for each in by_rank.values()
        for before, after in zip(each[::2], each[1::2])
    ]
    return float(min(1.0, np.median(shares)))


def _tables(run: Run, members: int, cluster: Cluster) -> list[tuple[str, int, Measured]]:
    bandwidth = min(cluster.bandwidth(link) for link in cluster.route(0, 1))
    latency = cluster.latency(0, 1)
    tables = []
    for kind in KINDS:
        points = []
        for size, times in _durations(run, kind.__name__, members).items():
            seconds = _usual(times)
            critical = critical_bytes(kind, members, 4.0 * size)
            explained = rounds(kind, members) * latency + critical / bandwidth
            points.append((critical, max(0.0, seconds - explained)))
        tables.append((kind.__name__, members, Measured(tuple(sorted(points)))))
    return tables


def _durations(run: Run, name: str, members: int) -> dict[int, list[float]]:
    """By elements, how long each took: from the last member's start until the last member goes on."""
    meetings: dict[tuple[int, int, int], list[tuple[float, float]]] = defaultdict(list)
    for lane in _lanes(run):
        for span, following in pairwise(lane):
            if span.step >= WARM_UP and span.instruction.startswith(f"{name} "):
                size = int(span.instruction.split("[")[1].split("]")[0])
                meetings[size, span.step, span.rank // members].append((span.start, following.start))
    times = defaultdict(list)
    for (size, _, _), spans in meetings.items():
        times[size].append(max(end for _, end in spans) - max(start for start, _ in spans))
    return times


def _usual(times: list[float]) -> float:
    """What a quick one takes; what others take longer is drawn by chance, as the operating system does."""
    return float(np.quantile(times, QUICK))


def _delays(run: Run, members: int) -> tuple[float, ...]:
    """What each collective took longer than a quick one of its type and size."""
    every = [times for kind in KINDS for times in _durations(run, kind.__name__, members).values()]
    return tuple(max(0.0, seconds - _usual(times)) for times in every for seconds in times)


def _between(run: Run, one: Callable[[], tuple[()]], other: Callable[[], tuple[()]]) -> float:
    """From the start of an empty instruction to that of another, with nothing between them that is seen."""
    texts = str(Compute(one)), str(Compute(other))
    gaps = [
        following.start - span.start
        for lane in _lanes(run)
        for span, following in pairwise(lane)
        if (span.instruction, following.instruction) == texts
    ]
    return float(np.median(gaps))


def _lanes(run: Run) -> list[list[Span]]:
    lanes = defaultdict(list)
    for span in run.spans:
        if span.stream == COMPUTE:
            lanes[span.rank].append(span)
    return list(lanes.values())
