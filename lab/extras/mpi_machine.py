"""A wall clock over MPI: interprets programs that compute and average. The twin of ``lab.wall``."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from simulator.collectives import sent_bytes
from simulator.learning import Tensors
from simulator.problem import Problem
from simulator.program import AllReduce, Barrier, Instruction, Record, Start, Wait
from simulator.rank import Rank
from simulator.spans import COMPUTE, Sample, Spans
from simulator.stack import Stack

from ..clocks import Clock
from ..observed import Observed, prepared
from ..place import Place


def run_rank(place: Place, stack: Stack, problem: Problem, steps: int, seed: int) -> Observed:
    """Run one rank's program to its end."""
    from mpi4py import MPI  # which begins here: importing it is joining the others

    me, tensors = prepared(place, stack, problem, steps, seed)
    machine = Machine(MPI, place, me, tensors)
    machine.run(stack)
    held = tensors.pieces(stack.holds(me))
    return Observed(machine.spans, machine.samples, [], held, machine.clock.error)


@dataclass
class Underway:
    """An all-reduce that was begun: what is waited for, the numbers, and what to note when it is done."""

    request: Any
    numbers: Any
    mean_of: int
    stream: str
    text: str
    step: int
    start: float
    sent: float


@dataclass
class Machine:
    """Interprets one rank's program. ``mpi`` is mpi4py's module."""

    mpi: Any
    place: Place
    me: Rank
    tensors: Tensors
    clock: Clock = field(default_factory=Clock)
    spans: Spans = field(default_factory=Spans)
    samples: list[Sample] = field(default_factory=list)
    underway: list[Underway] = field(default_factory=list)
    groups: dict[str, Any] = field(default_factory=dict)

    def run(self, stack: Stack) -> None:
        """From a common zero to the end of the program. All ranks are on one machine, so its clock is theirs."""
        self.place.board.note(0, "agreeing on the time", True)
        self.clock = Clock(self.mpi.COMM_WORLD.bcast(time.monotonic()))
        for instruction in stack.program(self.me):
            self.place.board.progress(self.me.step / self.me.total)
            self.do(instruction)
            self.poll()
        self.finish()
        self.mpi.COMM_WORLD.Barrier()

    def do(self, instruction: Instruction, stream: str = COMPUTE) -> None:
        """Run one instruction; what is started is only begun."""
        self.place.board.note(self.me.step, str(instruction), isinstance(instruction, (AllReduce, Barrier, Wait)))
        if isinstance(instruction, Start):
            self.start(instruction)
        elif isinstance(instruction, AllReduce):
            self.begin(instruction, stream)
            if stream == COMPUTE:
                self.finish()
        elif isinstance(instruction, Wait):
            self.finish()
        elif isinstance(instruction, Record):
            self.sample(instruction.name, instruction.value)
        elif isinstance(instruction, Barrier):
            self.group(instruction.over).Barrier()
        else:
            self.compute(instruction, stream)

    def start(self, start: Start) -> None:
        """Begin a sub-program: an all-reduce goes on by itself, anything else waits for it and is done at once."""
        for number, inner in enumerate(start.what):
            if number:
                self.finish()
            self.do(inner, start.on)

    def compute(self, instruction: Instruction, stream: str) -> None:
        """Do the maths."""
        begin = self.clock.now()
        noted = self.tensors.compute(instruction)
        self.spans.add(self.me.rank, stream, str(instruction), self.me.step, begin, self.clock.now())
        if noted is not None:
            self.sample(*noted)

    def sample(self, name: str, value: float) -> None:
        """Note a number."""
        self.samples.append(Sample(self.me.rank, self.me.step, self.clock.now(), name, value, self.me.version))

    def begin(self, reduce: AllReduce, stream: str) -> None:
        """Begin an all-reduce, in place."""
        me, group = self.me, self.group(reduce.over)
        position = me.group(reduce.over).index(me.rank)
        sent = sent_bytes(reduce, group.size, me.bytes(reduce.value), position) if group.size > 1 else 0.0
        numbers, start = self.tensors.read(reduce.value).detach().numpy(), self.clock.now()
        request = group.Iallreduce(self.mpi.IN_PLACE, numbers)
        mean_of = group.size if reduce.op == "mean" else 1
        self.underway.append(Underway(request, numbers, mean_of, stream, str(reduce), me.step, start, sent))

    def poll(self) -> None:
        """Note which all-reduces have ended. MPI moves them on while it is asked."""
        while self.underway and self.underway[0].request.Test():
            self.end(self.underway.pop(0))

    def finish(self) -> None:
        """Wait for all that was begun."""
        while self.underway:
            self.underway[0].request.Wait()
            self.end(self.underway.pop(0))

    def end(self, done: Underway) -> None:
        """An all-reduce is over: make a mean of the sum."""
        done.numbers /= done.mean_of
        self.spans.add(self.me.rank, done.stream, done.text, done.step, done.start, self.clock.now(), done.sent)

    def group(self, axis: str) -> Any:
        """The communicator of the ranks along an axis."""
        if axis not in self.groups:
            members = self.mpi.COMM_WORLD.group.Incl(list(self.me.group(axis)))
            self.groups[axis] = self.mpi.COMM_WORLD.Create_group(members)
        return self.groups[axis]
