"""Measure how long messages and collectives take between the processes of this machine."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch

from simulator.cluster import Cluster, Overheads
from simulator.collectives import critical_bytes, rounds
from simulator.problem import Problem
from simulator.program import AllReduce, Barrier, Compute, Recv, Send
from simulator.rank import Rank
from simulator.run import Run
from simulator.spans import COMPUTE, Span, kind
from simulator.stack import Order, Program
from simulator.values import Named

from .running import execute


def _work() -> tuple[()]:
    until = time.perf_counter() + 0.5e-3
    matrix = torch.ones(64, 64)
    while time.perf_counter() < until:
        matrix = matrix @ matrix * 0.01
    return ()


STEPS = 60
WARM_UP = 5
SIZES = (1, 4_096, 16_384, 65_536, 262_144)
"""Elements of the buffers that are sent, four bytes each."""

WORK = Compute(_work)
"""Between messages ranks compute; without it their threads are still awake, and times are not those of training."""

Samples = dict[int, list[float]]
"""Seconds, as often as they were measured, by size [bytes]."""


@dataclass(frozen=True)
class Probe(Order):
    """Reduce buffers of several sizes over all ranks, and send them from rank 0 to rank 1, who is waiting."""

    axis: ClassVar[str | None] = "probe"

    sizes: tuple[int, ...] = SIZES

    def program(self, me: Rank) -> Program:
        buffers = [Named("buffer", size) for size in self.sizes]
        for buffer in buffers:
            yield Compute(filled(buffer.key), writes=(buffer,))
        for _ in me.steps():
            for buffer in buffers:
                yield Barrier()
                yield WORK
                yield AllReduce(buffer, op="sum")
                yield WORK
                if me.at("probe") == 0:
                    yield Recv(buffer, source=1)
                    yield Send(buffer, to=1)
                elif me.at("probe") == 1:
                    yield Send(buffer, to=0)
                    yield Recv(buffer, source=0)


def filled(size: int) -> object:
    """A function that makes a buffer of so many elements."""
    def zeros() -> torch.Tensor:
        return torch.zeros(size, dtype=torch.float32)

    return zeros


def measure_network(problem: Problem, ranks: int, seed: int = 0) -> Cluster:
    """This machine's processes as a flat cluster, from ``Probe``.

    Small messages are bimodal: most are quick, some wait for a time slice of the operating system. Latency and
    bandwidth are those of the quickest tenth; what the others took longer becomes the cluster's delays. What a
    Send takes of its sender's time is the median.
    """
    if ranks == 1:
        return Cluster.flat(1, bandwidth=1e9, name="1 process on this machine")
    run = execute(Probe(), problem, ranks, STEPS, seed, progress=False)
    sending, arriving, reducing = _sends(run), _arrivals(run), _reductions(run)
    message, sent_byte = _line(sending, 0.5)
    one_way, per_byte = _line(arriving)
    fixed, per_reduced = _line({int(critical_bytes(AllReduce, ranks, size)): t for size, t in reducing.items()})
    per_byte, sent_byte = max(per_byte, 1e-12), min(sent_byte, per_byte)
    latency = max(one_way - message, 1e-9)
    overheads = Overheads(
        collective=max(fixed - rounds(AllReduce, ranks) * latency, 0.0),
        message=message,
        message_byte=per_byte - min(per_reduced, per_byte - sent_byte) if per_reduced else sent_byte,
        rendezvous=True,
        message_delays=_delays(arriving),
        collective_delays=_delays({size: found for size, found in reducing.items() if size > min(reducing)}),
    )
    bandwidth = 1 / max(per_byte - overheads.message_byte, 1e-12)
    name = f"{ranks} processes on this machine, as measured"
    return Cluster.flat(ranks, bandwidth, latency, name=name, overheads=overheads)


# ---------------------------------------------------------------- reading the spans


def _size(span: Span) -> int:
    return 4 * int(span.instruction.split("[")[1].split("]")[0])


def _timed(run: Run, name: str, rank: int | None = None) -> dict[tuple[int, int], list[Span]]:
    """The spans of one kind of instruction, by size and step; each ends when its rank begins the next one.

    So they hold what it takes to wake a rank up, too. Sends have streams of their own, and end when they end.
    """
    lanes = defaultdict(list)
    for span in run.spans:
        lanes[span.rank, span.stream].append(span)
    found: dict[tuple[int, int], list[Span]] = defaultdict(list)
    for lane in lanes.values():
        for span, following in pairwise(lane):
            if kind(span.instruction) == name and span.step >= WARM_UP and rank in (None, span.rank):
                end = following.start if span.stream == COMPUTE else span.end
                found[_size(span), span.step].append(span._replace(end=end))
    return found


def _sends(run: Run) -> Samples:
    """What a Send takes of the sender's time."""
    found: Samples = defaultdict(list)
    for (size, _), spans in _timed(run, "Send").items():
        found[size] += [span.end - span.start for span in spans]
    return found


def _arrivals(run: Run) -> Samples:
    """From rank 0's Send until rank 1, which has been waiting for it, goes on."""
    sent, received = _timed(run, "Send", 0), _timed(run, "Recv", 1)
    found: Samples = defaultdict(list)
    for key in sent.keys() & received.keys():
        found[key[0]].append(received[key][0].end - sent[key][0].start)
    return found


def _reductions(run: Run) -> Samples:
    """From the last rank's start until the last rank goes on."""
    found: Samples = defaultdict(list)
    for (size, _), spans in _timed(run, "AllReduce").items():
        found[size].append(max(span.end for span in spans) - max(span.start for span in spans))
    return found


def _line(samples: Samples, quantile: float = 0.1) -> tuple[float, float]:
    """Seconds and seconds per byte of a quantile of the times, small and large sizes weighing alike."""
    sizes = np.array(sorted(samples), dtype=float)
    seconds = np.array([np.quantile(samples[size], quantile) for size in sorted(samples)])
    slope, intercept = np.polyfit(sizes, seconds, 1, w=1 / seconds)
    return max(float(intercept), 0.0), max(float(slope), 0.0)


def _delays(samples: Samples) -> tuple[float, ...]:
    """What each took longer than the quickest tenth of its size."""
    return tuple(
        max(0.0, seconds - float(np.quantile(found, 0.1))) for _, found in sorted(samples.items()) for seconds in found
    )
