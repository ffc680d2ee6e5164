"""How long the computations of a program take: its own, measured one by one, with no communication between them.

The program runs under the virtual clock, with tensors, in real processes; only the maths is timed. So an update by
Adam, half a backward pass, or a compressor take what they take here, and nothing of the network is in it. Where a core
has to be shared, that is not in it either: as many processes measure as there are cores (see ``simulator.cores``).
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from simulator.checking import AnyStrategy
from simulator.cluster import Cluster
from simulator.learning import Batches, Tensors
from simulator.problem import Problem
from simulator.program import Instruction, Recv, Send, Wait
from simulator.rank import Rank
from simulator.stack import Stack, stack
from simulator.threads import Thread
from simulator.virtual import Machine
from simulator.workload import rule_of

from . import torchrun
from .launch import run_ranks
from .machine import cores
from .place import Place

STEPS = 7
WARM_UP = 2
SLEEP = 1e-4
"""About as long as a rank sleeps that waits for a message [s]."""

Times = dict[tuple[int, str, int], list[float]]
"""Seconds by rank, text of the instruction, and how often it has come before in its step; one for each step."""


@dataclass(frozen=True)
class Profile:
    """What each computation takes on a core of its own [s]: ``seconds[rank][text of the instruction]``."""

    seconds: tuple[dict[str, float], ...]

    def of(self, instruction: Instruction, me: Rank) -> float:
        """Seconds of an instruction of a rank; 0 for one that never came."""
        return self.seconds[me.rank].get(str(instruction), 0.0)


def profile(
    strategy: AnyStrategy, problem: Problem, ranks: int, steps: int = STEPS, seed: int = 0, measuring: int | None = None
) -> Profile:
    """Time the computations of all ``ranks`` of a strategy, in ``measuring`` processes at once that each do them all.

    ``measuring`` is the number of cores, and no more than ``ranks``, unless told otherwise (under torchrun: all). A
    computation that comes several times in a step counts with the mean of the medians of each; the first steps do not
    count.

    Example::

        profile(sim.DataParallel(), sim.problem("digits-mlp"), ranks=2).seconds[0]["Forward 0 mb0"]
    """
    asked = stack(strategy), problem, ranks, steps, seed
    if torchrun.inside():  # its processes are there already, and all of them have to take part
        found = torchrun.run_here(time_all, int(os.environ["WORLD_SIZE"]), *asked)
    else:
        found = run_ranks(time_all, measuring or min(ranks, cores()), *asked, show_output=False)
    together: Times = defaultdict(list)
    for times in found:
        for key, seconds in times.items():
            together[key] += seconds
    return Profile(tuple(_typical(together, rank) for rank in range(ranks)))


def _typical(times: Times, rank: int) -> dict[str, float]:
    medians: dict[str, list[float]] = defaultdict(list)
    for (whose, text, _), seconds in times.items():
        if whose == rank:
            medians[text].append(median(seconds))
    return {text: sum(each) / len(each) for text, each in medians.items()}


def time_all(place: Place, whole: Stack, problem: Problem, ranks: int, steps: int, seed: int) -> Times:
    """Run all ranks under the virtual clock in this process. Called in every measuring process at once."""
    model, rule, times = problem.model(), rule_of(whole, problem), Times()
    members = [Rank(whole, rank, ranks, model, steps, rule) for rank in range(ranks)]
    # Each draws its own batches, as real ranks do.
    tensors = [Tensors(me, problem, seed, Batches(problem, seed), place.device) for me in members]
    watches = [Stopwatch(mine.me, place, times) for mine in tensors]
    for mine, watch in zip(tensors, watches):
        mine.run = {kind: watch.timed(action) for kind, action in mine.run.items()}
    machine = Machine(whole, members, Cluster.flat(ranks, 1e9, 1e-5), seed, tensors=tensors)
    for kind in (Send, Recv, Wait):
        machine.decoders[kind] = _noticed(machine.decoders[kind], watches)
    machine.gathering.join = _noticed(machine.gathering.join, watches)  # type: ignore[method-assign]
    machine.run()
    return times


def _noticed(handler: Callable[..., object], watches: list[Stopwatch]) -> Callable[..., object]:
    """A handler of communication, after which the next computation of its rank comes after a wait."""

    def handle(thread: Thread, *rest: object) -> object:
        watches[thread.state.me.rank].waited = True
        return handler(thread, *rest)

    return handle


class Stopwatch:
    """Times what one rank does with its tensors."""

    def __init__(self, me: Rank, place: Place, times: Times):
        self.me, self.place, self.times = me, place, times
        self.step, self.seen, self.waited = -1, defaultdict[str, int](int), False

    def timed(self, action: Callable[[Any], None]) -> Callable[[Any], None]:
        """The same action, timed."""

        def act(instruction: Instruction) -> None:
            if self.waited:  # real ranks sleep while they wait, and what is computed next finds caches and cores cold
                time.sleep(SLEEP)
                self.waited = False
            start = time.perf_counter()
            action(instruction)
            self.place.synchronise()
            self.note(str(instruction), time.perf_counter() - start)

        return act

    def note(self, text: str, seconds: float) -> None:
        """One more computation is done."""
        if self.me.step != self.step:
            self.step, self.seen = self.me.step, defaultdict(int)
            self.place.board.note(self.step, text)
        if self.step >= min(WARM_UP, self.me.total - 1):
            self.times.setdefault((self.me.rank, text, self.seen[text]), []).append(seconds)
        self.seen[text] += 1
