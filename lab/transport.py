"""Messages between real ranks on torch.distributed, by the names that programs use."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from threading import Lock
from typing import Any
from zlib import crc32

import torch
import torch.distributed as dist

from simulator.errors import ProgramError
from simulator.learning import Tensors
from simulator.program import ANY, Instruction, Recv, Send
from simulator.rank import Rank
from simulator.values import Nothing, Value

from .desk import Desk

HEADER = 40
"""Bytes before the payload of a message: value, version, size, its number, and up to which number I have had yours."""
EMPTY = -1
"""In the place of the key: a message without a value."""
MOST_SENDS = 256  # sends to a rank that has not said that it took them; beyond, the sender waits for the oldest


@dataclass(frozen=True)
class Arrived:
    """A message: who sent it, its version, and what it holds; nothing at all when it is empty."""

    source: int
    version: int
    payload: torch.Tensor | None = None

    @property
    def empty(self) -> bool:
        """Whether it only tells."""
        return self.payload is None


class Taken:
    """Which letters of a sender were taken: all below a number, and some beyond it, since letters go by name."""

    def __init__(self) -> None:
        self.below, self.beyond = 0, set[int]()

    def add(self, number: int) -> None:
        """One more was taken."""
        self.beyond.add(number)
        while self.below in self.beyond:
            self.beyond.remove(self.below)
            self.below += 1


class Letters:
    """Messages of one rank: a header and the value's bytes in one piece, over gloo, which can receive from any rank.

    On GPUs they pass through the host's memory, for nccl cannot receive from any.
    """

    def __init__(self, me: Rank, tensors: Tensors):
        self.me, self.tensors = me, tensors
        self.sending: dict[int, deque[tuple[Any, torch.Tensor]]] = defaultdict(deque)
        self.sent, self.taken = Counter[int](), defaultdict[int, Taken](Taken)
        self.spare: dict[int, list[torch.Tensor]] = defaultdict(list)
        self.lock = Lock()  # an Until receives in a thread of its own
        self.desks: dict[Value, Desk] = {}  # for messages to itself

    def send(self, send: Send) -> float:
        """Put a snapshot on its way; gives its bytes."""
        target = self.me.peer(send.over, send.to)
        if target == self.me.rank:
            return self._keep(send)
        payload = _bytes(self.tensors.read(send.value).detach())
        size = payload.numel()
        letter = self._letter(size)
        empty = isinstance(send.value, Nothing)
        key = _key(name_of(send))
        letter[HEADER:] = payload
        with self.lock:
            facts = [EMPTY if empty else key, send.version, size, self.sent[target], self.taken[target].below]
            letter[:HEADER].view(torch.int64)[:] = torch.tensor(facts)
            self.sending[target].append((dist.isend(letter, target, tag=key), letter))
            self.sent[target] += 1
        self._reclaim(target, self.sent[target] - MOST_SENDS)
        return float(size)

    def _letter(self, size: int) -> torch.Tensor:
        """Room for a message. Letters are used again: fresh memory can cost more than sending it does."""
        with self.lock:  # streams send too, each in a thread of its own
            if self.spare[size]:
                return self.spare[size].pop()
        return torch.empty(HEADER + size, dtype=torch.uint8)

    def _reclaim(self, target: int, taken: int) -> None:
        """Take back the letters up to a number, which their receiver has had, or has to have now."""
        while True:
            with self.lock:
                waiting = self.sending[target]
                if not waiting or self.sent[target] - len(waiting) >= taken:
                    return
                work, letter = waiting.popleft()
            work.wait()  # not with the lock: other streams go on meanwhile, and this may wait for what they do
            with self.lock:
                self.spare[letter.numel() - HEADER].append(letter)

    def expect(self, what: Iterable[Instruction]) -> None:
        """A stream will do this: what it sends to its own rank must find it even where that waits for anybody."""
        for send in what:
            if isinstance(send, Send) and self.me.peer(send.over, send.to) == self.me.rank:
                self._desk(name_of(send))

    def _desk(self, value: Value) -> Desk:
        if value not in self.desks:
            self.desks[value] = Desk(lambda: self._fetch(Recv(value, source=ANY)), self.me.rank)
        return self.desks[value]

    def _keep(self, send: Send) -> float:
        """A message to itself."""
        payload = None if isinstance(send.value, Nothing) else self.tensors.read(send.value).detach().clone()
        self._desk(name_of(send)).put(Arrived(self.me.rank, send.version, payload))
        return 0.0 if payload is None else float(payload.nbytes)

    def fail(self, error: BaseException) -> None:
        """Work on a stream has failed: whoever waits for what it would have sent shall know."""
        for desk in self.desks.values():
            desk.put(error)

    def receive(self, recv: Recv) -> Arrived:
        """Wait for a message; ``store`` puts it where the program wants it."""
        source = None if recv.source == ANY else self.me.peer(recv.over, recv.source)
        if source == self.me.rank or recv.value in self.desks:
            return self._desk(recv.value).take(source)
        return self._fetch(recv)

    def _fetch(self, recv: Recv) -> Arrived:
        """Wait for a message of another rank."""
        wanted = None if recv.source == ANY else self.me.peer(recv.over, recv.source)
        shape, dtype = self.tensors.layout(recv.value)
        expected = prod(shape) * dtype.itemsize
        letter = torch.empty(HEADER + expected, dtype=torch.uint8)
        source = dist.recv(letter, wanted, tag=_key(recv.value))
        key, version, size, number, had = letter[:HEADER].view(torch.int64).tolist()
        with self.lock:
            self.taken[source].add(number)
        self._reclaim(source, had)
        if key == EMPTY:
            return Arrived(source, version)
        if size != expected:
            raise ProgramError(
                f"a Recv gets as many bytes as it expects; rank {self.me.rank} expects {recv.value} with {expected},"
                f" rank {source} sent it with {size}"
            )
        return Arrived(source, version, letter[HEADER:].view(dtype).view(shape))

    def store(self, recv: Recv, arrived: Arrived) -> None:
        """Write what a message holds."""
        if arrived.payload is not None:
            self.tensors.write(recv.stored, arrived.payload.to(self.tensors.device))

    def finish(self) -> None:
        """Wait until everything sent has been taken."""
        for target in self.sending:
            self._reclaim(target, self.sent[target])


def name_of(send: Send) -> Value:
    """The value that a Recv names to get this message."""
    return send.value.stands_for if isinstance(send.value, Nothing) else send.value


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8) if tensor.numel() else tensor.new_empty(0, dtype=torch.uint8)


def _key(value: Value) -> int:
    """The tag by which gloo matches a message and a receive: 31 bits."""
    return crc32(str(value).encode()) & 0x7FFFFFFF
