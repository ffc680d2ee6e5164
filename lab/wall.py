"""The wall clock: interprets programs on real processes.

It is the twin of ``simulator.virtual``: it runs the very same programs, hands the maths to the same ``Tensors``, and
observes the same spans and samples; only here time passes by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from threading import Lock
from typing import Any

import torch
import torch.distributed as dist

from simulator.collectives import sent_bytes
from simulator.errors import ProgramError
from simulator.hazards import Hazard, InFlight, touches
from simulator.learning import Batches, Piece, Tensors
from simulator.problem import Problem
from simulator.program import Collective, Instruction, Message, Record, Recv, Send, Start, Until, Wait
from simulator.rank import Rank
from simulator.rules import Rule
from simulator.spans import COMPUTE, Sample, Spans
from simulator.stack import Stack
from simulator.values import Params, whole

from .clocks import Clock, agree
from .place import Place
from .transport import Letters, issue


@dataclass
class Observed:
    """What one rank brings back from a run."""

    spans: Spans
    samples: list[Sample]
    outcomes: list[int]
    pieces: list[Piece]
    clock_error: float


@dataclass
class Pending:
    """Something started and not yet waited for."""

    what: tuple[Instruction, ...]
    finish: Callable[[], object]


@dataclass
class Stream:
    """Programs put on one stream run in a thread of its own, one after another.

    A lone collective needs no thread: its backend already runs a group's collectives in order.
    """

    name: str
    thread: ThreadPoolExecutor | None = None
    last: Future[None] | None = None
    collectives: list[Underway] = field(default_factory=list)

    def run(self, action: Callable[[], None]) -> Future[None]:
        """Do something after everything that was put here before."""
        self.thread = self.thread or ThreadPoolExecutor(1, thread_name_prefix=self.name)
        before, self.collectives = self.collectives, []
        self.last = self.thread.submit(_after, before, action)
        return self.last

    @property
    def idle(self) -> bool:
        """Whether its thread has nothing to do."""
        return self.last is None or self.last.done()


class Underway:
    """A collective that has begun. Whoever needs its result calls ``wait``, from any thread."""

    def __init__(self, work: Any, after: Callable[[], None], clock: Clock, report: Callable[[float], None]):
        self.work, self.after, self.clock, self.report = work, after, clock, report
        self.lock, self.done = Lock(), False
        self.ended: list[float] = []
        if work is not None and (future := _future(work)) is not None:
            future.add_done_callback(lambda _: self.ended.append(clock.now()))

    def wait(self) -> None:
        """Wait for its end, and report when that was: before anybody asked, perhaps."""
        with self.lock:
            if not self.done:
                if self.work is not None:
                    self.work.wait()
                self.after()
                self.report(self.ended[0] if self.ended else self.clock.now())
                self.done = True


def _future(work: Any) -> Any:
    """The Future of a Work; a barrier's has none."""
    try:
        return work.get_future()
    except RuntimeError:
        return None


def _after(before: list[Underway], action: Callable[[], None]) -> None:
    for other in before:
        other.wait()
    action()


def run_rank(place: Place, stack: Stack, problem: Problem, steps: int, seed: int) -> Observed:
    """Run one rank's program to its end. Called in every rank at once."""
    rule = stack.rule or problem.rule
    _warm_up(rule)
    me = Rank(stack, place.rank, place.ranks, problem.model(), steps, rule)
    tensors = Tensors(me, problem, seed, Batches(problem, seed), place.device)
    machine = Wall(place, stack, me, tensors)
    try:
        machine.run()
    finally:
        machine.close()
    held = tensors.pieces(stack.order.holds(me))
    return Observed(machine.spans, machine.samples, machine.outcomes, held, machine.clock.error)


@cache
def _warm_up(rule: Rule) -> None:
    """Let torch load what it loads on first use (1 to 2 s for optimizers), before time counts."""
    leaf = torch.nn.Parameter(torch.zeros(2))
    leaf.grad = torch.zeros(2)
    rule.step(rule.optimizer([leaf]), since=torch.zeros(2))


class Wall:
    """Interprets one rank's program."""

    def __init__(self, place: Place, stack: Stack, me: Rank, tensors: Tensors):
        self.place, self.stack, self.me, self.tensors = place, stack, me, tensors
        self.spans, self.samples = Spans(), list[Sample]()
        self.outcomes: list[int] = []
        self.letters = Letters(me, tensors)
        self.streams: dict[str, Stream] = {}
        self.pending: list[Pending] = []
        self.flight = None if stack.order.static else InFlight()
        self.texts: dict[Instruction, str] = {}
        self.clock = Clock()
        self.special: dict[type[Instruction], Callable[[Any, str], object]] = {
            Start: self._start, Wait: self._wait, Record: self._record, Until: self._until,
            Send: self._send, Recv: self._recv,
        }  # fmt: skip

    def run(self) -> None:
        """From the common zero of all ranks to the end of the program."""
        place, me, program = self.place, self.me, self.stack.program(self.me)
        place.board.note(0, "agreeing on the time", waiting=True)
        self.clock = agree(place.rank, place.ranks)
        step, result = -1, None
        while True:
            try:
                instruction = program.send(result)
            except StopIteration:
                break
            if me.step != step:
                step = me.step
                place.board.progress(step / me.total)
            if self.flight is not None:
                self._examine(instruction)
            result = self.do(instruction, COMPUTE)
        place.board.note(me.step, "finishing", waiting=True)
        self._wait(Wait(), COMPUTE)
        self.letters.finish()
        self._synchronise()
        dist.barrier()

    def close(self) -> None:
        """End the threads of the streams."""
        for stream in self.streams.values():
            if stream.thread is not None:
                stream.thread.shutdown(wait=False, cancel_futures=True)

    def do(self, instruction: Instruction, stream: str) -> object:
        """Run one instruction on a stream; gives what the program gets for it."""
        text = self.texts.get(instruction)
        if text is None:
            text = self.texts[instruction] = str(instruction)
        special = self.special.get(type(instruction))
        if special is not None:
            return special(instruction, stream)
        if isinstance(instruction, Collective):
            self._collective(instruction, stream)
            return None
        self.place.board.note(self.me.step, text)
        start = self.clock.now()
        loss = self.tensors.compute(instruction)
        self._synchronise()
        end = self.clock.now()
        self.spans.add(self.me.rank, stream, text, self.me.step, start, end)
        if loss is not None:
            self._note(end, "loss", loss, self.me.version)
        return None

    def _synchronise(self) -> None:
        if self.place.device != "cpu":
            torch.cuda.synchronize()

    def _note(self, time: float, name: str, value: float, version: int = 0) -> None:
        self.samples.append(Sample(self.me.rank, self.me.step, time, name, value, version))

    def _examine(self, instruction: Instruction) -> None:
        assert self.flight is not None
        try:
            self.flight.issue(instruction, COMPUTE)
        except Hazard as hazard:
            raise ProgramError(f"{hazard} (rank {self.me.rank}, step {self.me.step})") from None

    # ------------------------------------------------------------ communication

    def _collective(self, collective: Collective, stream: str) -> None:
        """A collective in line: nothing else happens on this stream until it is done."""
        self._issue(collective, stream).wait()

    def _issue(self, collective: Collective, stream: str) -> Underway:
        """Begin a collective."""
        me, text, step = self.me, self.texts.setdefault(collective, str(collective)), self.me.step
        self.place.board.note(step, text, waiting=True)
        members = me.group(collective.over)
        size = me.bytes(collective.value)
        sent = sent_bytes(collective, len(members), size, members.index(me.rank)) if len(members) > 1 else 0.0
        start = self.clock.now()
        work, after = issue(collective, me, self.tensors, stream)

        def done(end: float) -> None:
            self.spans.add(me.rank, stream, text, step, start, end, sent)

        return Underway(work, after, self.clock, done)

    def _send(self, send: Send, stream: str) -> None:
        text, start = self.texts[send], self.clock.now()
        self.place.board.note(self.me.step, text, waiting=True)
        sent = self.letters.send(send)
        target = self.me.peer(send.over, send.to)
        self.spans.add(self.me.rank, f"to {target}", text, self.me.step, start, self.clock.now(), sent)

    def _recv(self, recv: Recv, stream: str, abandoned: bool = False) -> Message:
        text, start = self.texts.setdefault(recv, str(recv)), self.clock.now()
        self.place.board.note(self.me.step, text, waiting=True)
        arrived = self.letters.receive(recv)
        self.spans.add(self.me.rank, stream, text, self.me.step, start, self.clock.now())
        if recv.source < 0:
            self.outcomes.append(arrived.source)
        if not arrived.empty and isinstance(whole(recv.stored), Params):
            self.me.versions[recv.stored] = arrived.version
        position = self.me.position(arrived.source, recv.over)
        return Message(position, arrived.version, arrived.empty, abandoned)

    # ------------------------------------------------------------ control

    def _start(self, start: Start, on: str) -> None:
        stream = self.streams.setdefault(start.on, Stream(start.on))
        alone = start.what[0] if len(start.what) == 1 else None
        if isinstance(alone, Collective) and stream.idle:
            begun = self._issue(alone, start.on)
            stream.collectives = [*(other for other in stream.collectives if not other.done), begun]
            self.pending.append(Pending(start.what, begun.wait))
            return
        done = stream.run(lambda: self._sub_program(start))
        self.pending.append(Pending(start.what, done.result))

    def _sub_program(self, start: Start) -> None:
        for instruction in start.what:
            self.do(instruction, start.on)

    def _wait(self, wait: Wait, stream: str) -> None:
        value = wait.value
        wanted = [p for p in self.pending if value is None or any(touches(inner, value) for inner in p.what)]
        self.pending = [p for p in self.pending if p not in wanted] if value is not None else []
        for pending in wanted:
            pending.finish()

    def _record(self, record: Record, stream: str) -> None:
        self._note(self.clock.now(), record.name, record.value)

    def _until(self, until: Until, stream: str) -> Message:
        """Work until the message is here; whether it is, is looked up between instructions."""
        lane = self.streams.setdefault("until", Stream("until"))
        messages = list[Message]()
        step = self.me.step
        arrival = lane.run(lambda: messages.append(self._recv(until.recv, COMPUTE)))
        done = 0
        for instruction in until.what:
            if arrival.done():
                break
            self.do(instruction, stream)
            done += 1
        abandoned = done < len(until.what)
        self.place.board.note(step, self.texts[until.recv], waiting=True)
        arrival.result()
        self.outcomes.append(done if abandoned else -1)
        got = messages[0]
        return Message(got.source, got.version, got.empty, abandoned)
