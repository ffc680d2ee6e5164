"""Bytes between real ranks: messages and collectives on torch.distributed, by the names that programs use."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from math import prod
from threading import Lock
from typing import Any, cast
from zlib import crc32

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

from simulator.errors import ProgramError
from simulator.learning import Tensors
from simulator.program import ANY, AllGather, AllReduce, Barrier, Broadcast, Collective, Recv, ReduceScatter, Send
from simulator.rank import Rank
from simulator.values import Nothing, Value, bounds

HEADER = 32
"""Bytes before the payload of a message: which value, its version, its size, and how many I have had from you."""
MOST_SENDS = 256  # sends to a rank that has not said that it took them; beyond, the sender waits for the oldest
_groups: dict[tuple[str, tuple[int, ...], str], Any] = {}
"""Process groups of this process, kept from run to run: one per stream, members and device."""


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


class Letters:
    """Messages of one rank: a header and the value's bytes in one piece, over gloo, which can receive from any rank.

    On GPUs they pass through the host's memory, for nccl cannot receive from any.
    """

    def __init__(self, me: Rank, tensors: Tensors):
        self.me, self.tensors = me, tensors
        self.sending: dict[int, deque[tuple[Any, torch.Tensor]]] = defaultdict(deque)
        self.sent, self.taken = Counter[int](), Counter[int]()
        self.spare: dict[int, list[torch.Tensor]] = defaultdict(list)
        self.lock = Lock()  # an Until receives in a thread of its own

    def send(self, send: Send) -> float:
        """Put a snapshot on its way; gives its bytes."""
        target = self.me.peer(send.over, send.to)
        payload = _bytes(self.tensors.read(send.value).detach())
        size = payload.numel()
        # Letters are used again: fresh memory can cost more than sending it (some milliseconds for a megabyte).
        letter = self.spare[size].pop() if self.spare[size] else torch.empty(HEADER + size, dtype=torch.uint8)
        header = torch.tensor([_key(send.value), send.version, size, self.taken[target]])
        letter[:HEADER].view(torch.int64)[:] = header
        letter[HEADER:] = payload
        with self.lock:
            self.sending[target].append((dist.isend(letter, target), letter))
            self.sent[target] += 1
        self._reclaim(target, self.sent[target] - MOST_SENDS)
        return float(size)

    def _reclaim(self, target: int, taken: int) -> None:
        """Take back the letters up to a number, which their receiver has had, or has to have now."""
        with self.lock:
            waiting = self.sending[target]
            while waiting and self.sent[target] - len(waiting) < taken:
                work, letter = waiting.popleft()
                work.wait()
                self.spare[letter.numel() - HEADER].append(letter)

    def receive(self, recv: Recv) -> Arrived:
        """Wait for a message; ``store`` puts it where the program wants it."""
        wanted = None if recv.source == ANY else self.me.peer(recv.over, recv.source)
        shape, dtype = self.tensors.layout(recv.value)
        expected = prod(shape) * dtype.itemsize
        letter = torch.empty(HEADER + expected, dtype=torch.uint8)
        source = dist.recv(letter, wanted)
        key, version, size, had = letter[:HEADER].view(torch.int64).tolist()
        self.taken[source] += 1
        self._reclaim(source, had)
        if key == _key(Nothing()):
            return Arrived(source, version)
        if key != _key(recv.value) or size != expected:
            raise ProgramError(
                f"a Recv names the value that is sent; rank {self.me.rank} expects {recv.value} ({expected} bytes),"
                f" rank {source} sent {'it' if key == _key(recv.value) else 'another value'} ({size} bytes)"
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


def issue(collective: Collective, me: Rank, tensors: Tensors, stream: str) -> tuple[Any, Callable[[], None]]:
    """Begin a collective: (its Work or None, what to do when the Work is done)."""
    members = me.group(collective.over)
    if len(members) == 1:
        return None, lambda: None
    group = _group(stream, members, me.rank, tensors.device)
    value = tensors.read(collective.value)
    return _ISSUE[type(collective)](group, collective, value, members.index(me.rank), len(members))


Begun = tuple[Any, Callable[[], None]]
"""The Work of a collective, and what to do when it is done."""


def _all_reduce(group: Any, collective: AllReduce, value: torch.Tensor, at: int, n: int) -> Begun:
    return group.allreduce([value]), lambda: _mean(collective, value, n)


def _reduce_scatter(group: Any, collective: ReduceScatter, value: torch.Tensor, at: int, n: int) -> Begun:
    parts, size = _padded(value, n), bounds(value.numel(), at, n)
    mine = torch.empty_like(parts[at])
    work = group._reduce_scatter_base(mine, parts.view(-1))

    def finish() -> None:
        part = value.reshape(-1)[slice(*size)]
        part.copy_(mine[: part.numel()])
        _mean(collective, part, n)

    return work, finish


def _all_gather(group: Any, collective: AllGather, value: torch.Tensor, at: int, n: int) -> Begun:
    parts = _padded(value, n)
    gathered = torch.empty_like(parts)
    work = group._allgather_base(gathered.view(-1), parts[at])

    def finish() -> None:
        for position in range(n):
            part = value.reshape(-1)[slice(*bounds(value.numel(), position, n))]
            part.copy_(gathered[position][: part.numel()])

    return work, finish


def _broadcast(group: Any, collective: Broadcast, value: torch.Tensor, at: int, n: int) -> Begun:
    options = dist.BroadcastOptions()
    options.rootRank = collective.root
    return group.broadcast([value], options), lambda: None


def _barrier(group: Any, collective: Barrier, value: torch.Tensor, at: int, n: int) -> Begun:
    return group.barrier(), lambda: None


_ISSUE: dict[type, Callable[..., Begun]] = {
    AllReduce: _all_reduce,
    ReduceScatter: _reduce_scatter,
    AllGather: _all_gather,
    Broadcast: _broadcast,
    Barrier: _barrier,
}


def _mean(collective: AllReduce | ReduceScatter, value: torch.Tensor, n: int) -> None:
    if collective.op == "mean":
        value /= n


def _padded(value: torch.Tensor, n: int) -> torch.Tensor:
    """The n parts of a value as rows of one tensor; backends want rows of one length."""
    flat = value.reshape(-1)
    parts = [flat[slice(*bounds(flat.numel(), i, n))] for i in range(n)]
    rows = flat.new_zeros(n, max(map(len, parts)))
    for row, part in zip(rows, parts):
        row[: len(part)] = part
    return rows


def _group(stream: str, members: tuple[int, ...], rank: int, device: str) -> Any:
    """The process group of one communicator (axis and stream), made when it is first used.

    Built on the store directly, because ``new_group`` must be called by all ranks in one order, and programs may use
    their communicators in any.
    """
    kind = torch.device(device).type
    known = _groups.get((stream, members, kind))
    if known is None:
        name = f"{stream}/{'-'.join(map(str, members))}/{kind}"
        store = dist.PrefixStore(name, _get_default_store())
        make = _nccl if kind == "cuda" else dist.ProcessGroupGloo
        known = _groups[stream, members, kind] = make(store, members.index(rank), len(members), timeout=_timeout())
    known._set_default_timeout(_timeout())
    return known


def forget_groups() -> None:
    """Let go of all process groups, before the interpreter ends."""
    _groups.clear()


def _nccl(store: Any, rank: int, size: int, timeout: timedelta) -> Any:
    backend: Any = dist.ProcessGroupNCCL
    options = backend.Options()
    options._timeout = timeout
    return backend(store, rank, size, options)


def _timeout() -> timedelta:
    """That of the default group: who started the ranks has set it for this run."""
    world: Any = dist.group.WORLD
    return cast(timedelta, world._get_backend(torch.device("cpu")).options._timeout)


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8) if tensor.numel() else tensor.new_empty(0, dtype=torch.uint8)


def _key(value: Value) -> int:
    return crc32(str(value).encode())


__all__ = ["Arrived", "Letters", "issue"]
