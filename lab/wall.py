"""The wall clock: interprets programs on real processes.

It is the twin of ``simulator.virtual``: it runs the very same programs, hands the maths to the same ``Tensors``, and
observes the same spans and samples; only here time passes by itself. On a GPU a computation lasts until the GPU
has done it, and a collective until somebody has waited for it, since nccl does not tell when it ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.distributed as dist

from simulator.errors import ProgramError
from simulator.hazards import Hazard, InFlight, awaits
from simulator.learning import Tensors
from simulator.problem import Problem
from simulator.program import ANY, Collective, Instruction, Message, Record, Recv, Send, Start, Until, Wait
from simulator.rank import Rank
from simulator.spans import COMPUTE, Sample, Spans
from simulator.stack import Program, Stack
from simulator.values import Params, whole

from .clocks import Clock, agree
from .collectives import issue
from .lanes import Lane, Pending, Underway
from .observed import Observed, prepared
from .place import Place
from .transport import Arrived, Letters


def run_rank(place: Place, stack: Stack, problem: Problem, steps: int, seed: int) -> Observed:
    """Run one rank's program to its end. Called in every rank at once."""
    me, tensors = prepared(place, stack, problem, steps, seed)
    machine = Wall(place, stack, me, tensors)
    try:
        machine.run()
    finally:
        machine.close()
    held = tensors.pieces(stack.holds(me))
    return Observed(machine.spans, machine.samples, machine.outcomes, held, machine.clock.error, tensors.buffers())


class Wall:
    """Interprets one rank's program."""

    def __init__(self, place: Place, stack: Stack, me: Rank, tensors: Tensors):
        self.place, self.stack, self.me, self.tensors = place, stack, me, tensors
        self.note = place.board.note
        self.spans, self.samples = Spans(), list[Sample]()
        self.outcomes: list[int] = []
        self.letters = Letters(me, tensors)
        self.lanes: dict[str, Lane] = {}
        self.ends: dict[str, float] = {}
        self.pending: list[Pending] = []
        self.flight = None if stack.order.static else InFlight()
        self.texts: dict[Instruction, str] = {}
        self.clock = Clock()
        self.failure: BaseException | None = None  # of a sub-program
        self.special: dict[type[Instruction], Callable[[Any, str, int, str], object]] = {
            Start: self._start, Wait: self._wait, Record: self._record, Until: self._until,
            Send: self._send, Recv: self._recv,
        }  # fmt: skip

    def run(self) -> None:
        """From the common zero of all ranks to the end of the program."""
        self.note(0, "agreeing on the time", True)
        self.clock = agree(self.place.rank, self.place.ranks)
        self._interpret(self.stack.program(self.me))
        if self.me.missing_steps:
            raise ProgramError(self.me.missing_steps)
        self.note(self.me.step, "finishing", True)
        self._finish(self.pending)
        self.letters.finish()
        self.place.synchronise()
        dist.barrier()

    def _interpret(self, program: Program) -> None:
        me, step, result = self.me, -1, None
        while True:
            try:
                instruction = program.send(result)
            except StopIteration:
                return
            if me.step != step:
                step = me.step
                self.place.board.progress(step / me.total)
            if self.flight is not None:
                self._examine(instruction)
            result = self.do(instruction, COMPUTE, step)

    def close(self) -> None:
        """End the threads of the streams."""
        for lane in self.lanes.values():
            lane.close()

    def do(self, instruction: Instruction, stream: str, step: int) -> object:
        """Run one instruction on a stream, as part of a step; gives what the program gets for it."""
        if self.failure is not None:
            raise self.failure
        text = self.texts.get(instruction)
        if text is None:
            text = self.texts[instruction] = str(instruction)
        special = self.special.get(type(instruction))
        if special is not None:
            return special(instruction, stream, step, text)
        if isinstance(instruction, Collective):
            self._issue(instruction, stream, step, text).wait()
        else:
            self._compute(instruction, stream, step, text)
        return None

    def _compute(self, instruction: Instruction, stream: str, step: int, text: str) -> None:
        self.note(step, text)
        start = self.clock.now()
        noted = self.tensors.compute(instruction)
        self.place.synchronise()
        end = self.clock.now()
        self.spans.add(self.me.rank, stream, text, step, start, end)
        if noted is not None:
            self.samples.append(Sample(self.me.rank, step, end, *noted, self.me.version))

    def _examine(self, instruction: Instruction) -> None:
        assert self.flight is not None
        try:
            self.flight.issue(instruction, COMPUTE)
        except Hazard as hazard:
            raise ProgramError(f"{hazard} (rank {self.me.rank}, step {self.me.step})") from None

    # ------------------------------------------------------------ communication

    def _issue(self, collective: Collective, stream: str, step: int, text: str) -> Underway:
        """Begin a collective."""
        me = self.me
        self.note(step, text, True)
        start = self.clock.now()
        begun = issue(collective, me, self.tensors, stream)
        on_cpu = self.place.device == "cpu"

        def settle() -> None:
            begun.after()
            self.place.synchronise()

        def done(end: float) -> None:
            # It began when the one before it on this stream had ended, however early it was issued.
            begin = max(start, self.ends.get(stream, start))
            self.ends[stream] = max(begin, end)
            self.spans.add(me.rank, stream, text, step, begin, self.ends[stream], begun.sent)

        return Underway(begun.work, settle, self.clock, done, tells_its_end=on_cpu)

    def _send(self, send: Send, stream: str, step: int, text: str) -> None:
        start = self.clock.now()
        self.note(step, text, True)
        sent = self.letters.send(send)
        target = self.me.peer(send.over, send.to)
        self.spans.add(self.me.rank, f"to {target}", text, step, start, self.clock.now(), sent)

    def _recv(self, recv: Recv, stream: str, step: int, text: str) -> Message:
        start = self.clock.now()
        self.note(step, text, True)
        return self._accept(recv, self.letters.receive(recv), stream, step, start)

    def _accept(
        self, recv: Recv, arrived: Arrived, stream: str, step: int, start: float, abandoned: bool = False
    ) -> Message:
        """Store what has come, and say so."""
        self.letters.store(recv, arrived)
        self.spans.add(self.me.rank, stream, self.texts[recv], step, start, self.clock.now())
        if recv.source == ANY:
            self.outcomes.append(arrived.source)
        if not arrived.empty and isinstance(whole(recv.stored), Params):
            self.me.versions[recv.stored] = arrived.version
        return Message(self.me.position(arrived.source, recv.over), arrived.version, arrived.empty, abandoned)

    # ------------------------------------------------------------ control

    def _start(self, start: Start, stream: str, step: int, text: str) -> None:
        lane = self._lane(start.on)
        alone = start.what[0] if len(start.what) == 1 else None
        if isinstance(alone, Collective) and lane.idle:
            begun = self._issue(alone, start.on, step, self.texts.setdefault(alone, str(alone)))
            lane.follow(begun)
            self.pending.append(Pending(start.what, lambda: lane.finish(begun)))
        else:
            self.letters.expect(start.what)
            done = lane.run(lambda: self._sub_program(start, step if start.step is None else start.step))
            self.pending.append(Pending(start.what, done.result))

    def _lane(self, name: str) -> Lane:
        if name not in self.lanes:
            self.lanes[name] = Lane(name, self.place.enter)
        return self.lanes[name]

    def _sub_program(self, start: Start, step: int) -> None:
        instruction: Instruction = start
        try:
            for instruction in start.what:
                self.do(instruction, start.on, step)
        except BaseException as error:
            # The program raises it with its next instruction. Should it be waiting for another rank, the board tells.
            self.failure = error
            text = f"{instruction} on stream {start.on!r} raised {type(error).__name__}: {error}"
            self.note(step, text, isinstance(instruction, (Collective, Send, Recv)))
            self.letters.fail(error)
            raise

    def _wait(self, wait: Wait, stream: str, step: int, text: str) -> None:
        wanted = [pending for pending in self.pending if awaits(wait.value, pending.what)]
        self.note(step, text, True)
        self._finish(wanted)

    def _finish(self, wanted: list[Pending]) -> None:
        self.pending = [pending for pending in self.pending if pending not in wanted]
        for pending in wanted:
            pending.finish()

    def _record(self, record: Record, stream: str, step: int, text: str) -> None:
        self.samples.append(Sample(self.me.rank, step, self.clock.now(), record.name, record.value))

    def _until(self, until: Until, stream: str, step: int, text: str) -> Message:
        """Work until the message is here; whether it is, is looked up between instructions.

        Once the first Send is out the work is done to its end: its receivers count on all of it.
        """
        self.letters.expect(until.what)
        waiting = self.texts.setdefault(until.recv, str(until.recv))
        lane, messages = self._lane("until"), list[Arrived]()
        # Taken in a thread, stored here: nothing may write the parameters with which the work computes.
        arrival = lane.run(lambda: messages.append(self.letters.receive(until.recv)))
        done, sending = 0, False
        for instruction in until.what:
            sending = sending or isinstance(instruction, Send)
            if arrival.done() and not sending:
                break
            self.do(instruction, stream, step)
            done += 1
        abandoned = done < len(until.what)
        self.note(step, waiting, True)
        start = self.clock.now()
        arrival.result()
        self.outcomes.append(done if abandoned else -1)
        return self._accept(until.recv, messages[0], stream, step, start, abandoned)
