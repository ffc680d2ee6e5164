"""Ranks that share the cores of one machine: who computes beside more others than there are cores goes slower.

Processor sharing: of k computations that are under way on c cores, each advances at the rate min(1, c/k). That is what
the operating system's time slices amount to, where they are shorter than steps (Kleinrock 1967, "Time-shared systems:
a theoretical treatment", J. ACM 14). Bytes that move between processes of one machine are copied by its cores, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from . import checks
from .clusters.wiring import Link
from .computing import COMPUTING
from .program import Instruction, Start, Wait
from .rank import Rank
from .threads import BLOCKED, Decoded, Thread

if TYPE_CHECKING:
    from .virtual import Machine

Jobs = list[tuple[float, int, float, Callable[[], None]]]
"""At what progress each one ends, a number that tells them apart, the cores that it wants, what then happens."""
Seconds = Callable[[Instruction, Rank], float]
"""What an instruction takes a rank that has a core to itself [s]."""


class Cores:
    """Makes the ranks of a machine that has not run yet compute on ``count`` cores.

    - ``seconds(instruction, me)``: how long each computation takes alone on a core.
    - ``copying``: the share of a core that each rank takes while its bytes move; 0: the network moves them by itself.
    - ``start``, ``wait``: what a Start, and a Wait for what has been started, take of the time of who says it [s], even
      if nothing is left to wait for.

    Raises ValueError for a ``count`` below 1 and a ``copying`` below 0.
    """

    def __init__(
        self,
        machine: Machine,
        count: int,
        seconds: Seconds,
        copying: float = 0.0,
        start: float = 0.0,
        wait: float = 0.0,
    ):
        self.machine, self.count, self.seconds = machine, checks.whole("count", count, least=1), seconds
        self.under_way: Jobs = []
        self.wanted = 0.0  # cores, by all that is under way
        self.done = self.since = 0.0  # how far each computation under way has come since the start of all, and when
        self.begun = self.planned = 0
        machine.decoders |= dict.fromkeys(COMPUTING, self.compute)
        self.start, self.wait = checks.number("start", start, least=0), checks.number("wait", wait, least=0)
        machine.decoders |= {Start: self._start, Wait: self._wait}
        if checks.number("copying", copying, least=0, of="a share of a core"):
            machine.network = Copying(self, copying)  # type: ignore[assignment]

    def compute(self, thread: Thread, instruction: Instruction, decoded: Decoded) -> object:
        """A computation of one rank: it begins when the simulation is where the rank is."""
        state = thread.state
        length = self.seconds(instruction, state.me)
        length *= 1.0 if state.factor is None else state.factor(thread.step)
        if thread.guard is not None and thread.guard.live:  # a message may cut it short: see simulator.races
            self.machine.races.compute(thread, instruction, decoded, length)
        else:
            self.machine.at(thread.clock, lambda: self._begin(thread, instruction, decoded, length))
        return BLOCKED

    def _begin(self, thread: Thread, instruction: Instruction, decoded: Decoded, length: float) -> None:
        start = thread.clock

        def end() -> None:
            thread.clock = max(start, self.machine.env.now)
            self.machine.complete(thread, instruction, decoded, start)
            self.machine.resume(thread)

        if length:
            self.begin(length, 1.0, end)
        else:
            end()

    def _start(self, thread: Thread, start: Start, decoded: Decoded) -> None:
        self.machine.streams.start(thread, start, decoded)
        thread.clock += self.start

    def _wait(self, thread: Thread, wait: Wait, decoded: Decoded) -> object:
        thread.clock += self.wait if thread.state.tasks else 0.0
        return self.machine.streams.wait(thread, wait, decoded)

    def begin(self, seconds: float, wanted: float, end: Callable[[], None]) -> None:
        """Something begins now that takes so long if it gets the cores that it wants."""
        self._advance()
        self.begun += 1
        self.wanted += wanted
        heappush(self.under_way, (self.done + seconds, self.begun, wanted, end))
        self._plan()

    def _advance(self) -> None:
        """Note how far all have come by now."""
        now = self.machine.env.now
        if self.under_way:
            self.done += (now - self.since) * self._rate()
        self.since = now

    def _rate(self) -> float:
        return min(1.0, self.count / self.wanted)

    def _plan(self) -> None:
        """When the next one ends, if none begins before it."""
        self.planned += 1
        plan = self.planned
        wait = max(0.0, self.under_way[0][0] - self.done) / self._rate()
        self.machine.env.timeout(wait).callbacks.append(lambda event: self._end(plan))

    def _end(self, plan: int) -> None:
        if plan != self.planned:
            return  # another has begun or ended since
        self._advance()
        self.done, ends = self.under_way[0][0], []
        while self.under_way and self.under_way[0][0] <= self.done:
            _, _, wanted, end = heappop(self.under_way)
            self.wanted -= wanted
            ends.append(end)
        if self.under_way:
            self._plan()
        else:
            self.wanted = 0.0
        for end in ends:
            self.machine.drained(end)()


class Copying:
    """The place of a network, where cores copy what is sent: as fast as its slowest link, if cores are free."""

    def __init__(self, cores: Cores, share: float):
        self.cores, self.share, self.env = cores, share, cores.machine.env

    def start(
        self, path: Mapping[Link, float], size: float, done: Callable[[], None], exclusive: object = None
    ) -> None:
        """Move ``size`` bytes over all links of a path, over some of them several times."""
        bandwidth = self.cores.machine.cluster.bandwidth
        seconds = max(size * times / bandwidth(link) for link, times in path.items())
        ends = {end for link in path for end in link if isinstance(end, int)}
        wanted = min(self.share * len(ends), float(self.cores.count))
        self.cores.begin(seconds, wanted, done)
