"""Measure how long messages and collectives take between the processes of this machine."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
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
    matrix = torch.ones(192, 192)
    while time.perf_counter() < until:
        matrix = matrix @ matrix * 0.01
    return ()


STEPS = 60
WARM_UP = 5
SIZES = (1, 4_096, 16_384, 65_536, 262_144)
"""Elements of the buffers that are sent, four bytes each."""

TICK = 1e-6
"""Less time than this is not told apart from none [s]: a message may be there when its sender is still sending."""

WORK = Compute(_work, seconds=0.5e-3)
"""Between messages ranks compute; without it their threads are still awake, and times are not those of training."""

Samples = dict[int, list[float]]
"""Seconds, as often as they were measured, by size [bytes]."""


@dataclass(frozen=True)
class Probe(Order):
    """Reduce buffers of several sizes over all ranks; 0 and 1 send them to each other.

    First to one who comes later, then to one who waits, then both at once.
    """

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
                if me.at("probe") < 2:
                    yield from _there_and_back(buffer, me.at("probe"))
                yield Barrier()
                yield WORK
                if me.at("probe") < 2:
                    yield Send(buffer, to=1 - me.at("probe"))
                    yield Recv(buffer, source=1 - me.at("probe"))


def _there_and_back(buffer: Named, rank: int) -> Program:
    """From 1 to 0, who comes later, and back to 1, who waits. A Recv ends when its rank begins what follows: work."""
    if rank == 0:
        yield WORK
        yield Recv(buffer, source=1)
        yield WORK
    yield Send(buffer, to=1 - rank)
    if rank == 1:
        yield Recv(buffer, source=0)


def filled(size: int) -> object:
    """A function that makes a buffer of so many elements."""
    def zeros() -> torch.Tensor:
        return torch.zeros(size, dtype=torch.float32)

    return zeros


def measure_network(problem: Problem, ranks: int, seed: int = 0) -> Cluster:
    """This machine's processes as a flat cluster, from ``Probe``.

    Small messages are bimodal: most are quick, some wait for a time slice of the operating system, most of all where
    both ends send at once or the receiver comes late. Times are those of the quickest tenth; what the others took
    longer becomes the cluster's delays.
    """
    if ranks == 1:
        return Cluster.flat(1, bandwidth=1e9, name="1 process on this machine")
    return network_of(execute(Probe(), problem, ranks, STEPS, seed, progress=False))


def network_of(run: Run) -> Cluster:
    """The flat cluster on which the ``Probe`` ran, by its spans."""
    ranks = run.ranks
    (sending, crossed), (arriving, late), reducing = _sends(run), _arrivals(run), _reductions(run)
    message, sent_byte = _line(sending)
    latency, per_byte = _line(arriving)
    fixed, per_reduced = _line({int(critical_bytes(AllReduce, ranks, size)): t for size, t in reducing.items()})
    per_byte, latency = max(per_byte, 1e-12), max(latency, 1e-9)
    overheads = Overheads(
        collective=max(fixed - rounds(AllReduce, ranks) * latency, 0.0),
        message=message,
        message_byte=sent_byte + (per_byte - min(per_reduced or per_byte, per_byte)),
        rendezvous=True,
        send_delays=_delays(sending, message, sent_byte),
        crossed_delays=_delays(crossed, message, sent_byte),
        message_delays=_delays(arriving, latency, per_byte),
        late_delays=_delays(late, 2 * latency, per_byte),
        collective_delays=_slower({size: found for size, found in reducing.items() if size > min(reducing)}),
    )
    bandwidth = 1 / min(per_reduced or per_byte, per_byte)
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


def _pairs(run: Run) -> Iterator[tuple[int, list[tuple[Span, Span, Span | None]]]]:
    """By size: each Send, the Recv that takes it, and the Send of the other end in which it began, if there is one."""
    for source, target in ((0, 1), (1, 0)):
        sent, back, received = _timed(run, "Send", source), _timed(run, "Send", target), _timed(run, "Recv", target)
        for key in sent.keys() & received.keys():
            yield key[0], [
                (put, taken, next((other for other in back[key] if other.start <= put.start < other.end), None))
                for put, taken in zip(sent[key], received[key])
            ]


def _sends(run: Run) -> tuple[Samples, Samples]:
    """What a Send takes of the sender's time, alone and beginning while the other end sends."""
    alone: Samples = defaultdict(list)
    crossed: Samples = defaultdict(list)
    for size, pairs in _pairs(run):
        for put, _, other in pairs:
            (crossed if other else alone)[size].append(put.end - put.start)
    return alone, crossed


def _arrivals(run: Run) -> tuple[Samples, Samples]:
    """From when a message was sent and its receiver waits for it, until the receiver goes on: if it waits, if late."""
    waited: Samples = defaultdict(list)
    late: Samples = defaultdict(list)
    for size, pairs in _pairs(run):
        for put, taken, _ in pairs:
            found = late if taken.start > put.start else waited
            found[size].append(max(0.0, taken.end - max(put.end, taken.start)))
    return waited, late


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
    slope, intercept = np.polyfit(sizes, seconds, 1, w=1 / np.maximum(seconds, TICK))
    return max(float(intercept), 0.0), max(float(slope), 0.0)


def _delays(samples: Samples, fixed: float, per_byte: float) -> tuple[float, ...]:
    """What each took longer than a quick one of its size.

    Only of messages whose bytes take little: what many bytes take longer is the link's doing, not chance's.
    """
    light = [size for size in sorted(samples) if size * per_byte <= fixed] or sorted(samples)[:1]
    return tuple(max(0.0, seconds - fixed - size * per_byte) for size in light for seconds in samples[size])


def _slower(samples: Samples) -> tuple[float, ...]:
    """What each took longer than the quickest tenth of its size."""
    return tuple(
        max(0.0, seconds - float(np.quantile(found, 0.1))) for _, found in sorted(samples.items()) for seconds in found
    )
