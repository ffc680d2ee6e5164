"""The messages of one collective as events: each begins when it may, and shares its links with all that moves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import simpy

from .laying import Laid, bytes_of, seconds_of
from .network import Network
from .rounds import Progress
from .timetable import Timetable


class Carrier:
    """How many messages of every lane have begun, have left and have arrived, and what every rank still waits for.

    ``done`` is called with each rank that has sent and received everything. ``drained``: what is done to an action for
    the network and the clock to call.
    """

    def __init__(
        self,
        network: Network,
        laid: Laid,
        sizes: Sequence[float],
        done: Callable[[int], None],
        drained: Callable[[Callable[[], None]], Callable[[], None]] = lambda action: action,
    ):
        self.network, self.laid, self.sizes, self.done, self.drained = network, laid, sizes, done, drained
        self.begun, self.left, self.got = ([0] * len(laid.lanes) for _ in range(3))
        self.ready: set[int] = set()
        self.stage: dict[int, int] = {}
        self.open: defaultdict[tuple[int, int], int] = defaultdict(int)
        self._count()

    def begin(self, rank: int) -> None:
        """A rank takes part from now on."""
        self.ready.add(rank)
        self._advance(rank)

    def go_on(self, progress: Progress, ranks: Iterable[int], lengths: Sequence[float]) -> None:
        """Begin with some ranks that were here before, when messages were so far; a whole one takes ``lengths`` [s]."""
        self.left, self.got, self.begun = progress.left, progress.arrived, list(progress.left)
        now = self.network.env.now
        for number, _ in progress.leaving:
            self.begun[number] += 1
        self._count()
        self.ready |= set(ranks)
        for number, end in progress.leaving:
            share = (end - now) / lengths[number] if lengths[number] else 0.0
            self._send(number, self.sizes[number] * max(0.0, share))
        for number, end in progress.arriving:
            self._later(end - now, partial(self._arrived, number))
        for rank in sorted(self.ready):
            self._advance(rank)

    def _count(self) -> None:
        """What every rank still has to send and to receive in each stage."""
        self.open.clear()
        for number, lane in enumerate(self.laid.lanes):
            sent = self.left[number] if lane.streams else self.got[number]
            self.open[lane.source, lane.stage] += lane.count - sent
            self.open[lane.target, lane.stage] += lane.count - self.got[number]

    # ------------------------------------------------------------ messages go

    def _try(self, lanes: Iterable[int]) -> None:
        """Send what can be sent now."""
        for number in lanes:
            if self._may(number):
                self.begun[number] += 1
                self._send(number, self.sizes[number])

    def _may(self, number: int) -> bool:
        lane, k, got = self.laid.lanes[number], self.begun[number], self.got
        if k == lane.count or lane.source not in self.ready or self.stage.get(lane.source) != lane.stage:
            return False
        if k > (self.left if lane.streams else got)[number]:
            return False
        return all(got[needed] > k - ahead for needed, ahead in lane.needs)

    def _send(self, number: int, size: float) -> None:
        left = self.drained(partial(self._left, number))
        self.network.start(self.laid.paths[number], size, left, most=self.laid.rates[number])

    def _left(self, number: int) -> None:
        self.left[number] += 1
        if latency := self.laid.latencies[number]:
            self._later(latency, partial(self._arrived, number))
        else:
            self._arrived(number)
        if self.laid.lanes[number].streams:
            self._sent(number)

    def _arrived(self, number: int) -> None:
        lane = self.laid.lanes[number]
        self.got[number] += 1
        if not lane.streams:
            self._sent(number)
        self._try(self.laid.waiting[number])
        self._less(lane.target, lane.stage)

    def _sent(self, number: int) -> None:
        """The sender is free for the next one."""
        lane = self.laid.lanes[number]
        self._try((number,))
        self._less(lane.source, lane.stage)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        act = self.drained(action)
        self.network.env.timeout(max(0.0, seconds)).callbacks.append(lambda event: act())

    # ------------------------------------------------------------ ranks go on

    def _less(self, rank: int, stage: int) -> None:
        self.open[rank, stage] -= 1
        if not self.open[rank, stage]:
            self._advance(rank)

    def _advance(self, rank: int) -> None:
        """A rank that is here begins the first stage that it has not done with."""
        if rank not in self.ready:
            return
        before, stages = self.stage.get(rank), len(self.laid.stages)
        stage = next((one for one in range(before or 0, stages) if self.open[rank, one]), stages)
        if stage != before:
            self.stage[rank] = stage
            self._try(self.laid.starting.get((rank, stage), ()))
            if stage == stages:
                self.done(rank)


def alone(laid: Laid, size: float) -> float:
    """How long the messages of a value of ``size`` bytes take, where nobody else uses their links [s]."""
    ranks = dict.fromkeys(rank for lane in laid.lanes for rank in (lane.source, lane.target))
    table = Timetable(laid, seconds_of(laid, size), dict.fromkeys(ranks, 0.0))
    return max(table.ends.values()) if table.fits else _played(laid, size, ranks)


def _played(laid: Laid, size: float, ranks: Iterable[int]) -> float:
    """On a clock of their own."""
    network, ends = Network(simpy.Environment(), laid.capacity), [0.0]
    carrier = Carrier(network, laid, bytes_of(laid, size), lambda rank: ends.append(network.env.now))
    for rank in ranks:
        carrier.begin(rank)
    network.env.run()
    return max(ends)
