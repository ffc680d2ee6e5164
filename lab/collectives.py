"""Collectives of real ranks, by the names that programs use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from simulator.collectives import gathered_bytes, sent_bytes
from simulator.combining import rows
from simulator.learning import Tensors
from simulator.program import AllGather, AllReduce, AllToAll, Barrier, Broadcast, Collective, ReduceScatter
from simulator.rank import Rank
from simulator.values import bounds

from .groups import group_of


@dataclass(frozen=True)
class Begun:
    """A collective that has begun: its Work (None: nothing to wait for), what is left when it is done, bytes sent."""

    work: Any
    after: Callable[[], None]
    sent: float = 0.0


@dataclass(frozen=True)
class Meeting:
    """What a collective is called with: its group, the tensors of this rank, its position among the members."""

    group: Any
    tensors: Tensors
    value: torch.Tensor
    at: int
    n: int

    def sends(self, collective: Collective, times: int = 1) -> float:
        """The bytes that this rank sends, where every rank brings as much: ``times`` the value."""
        return sent_bytes(collective, self.n, times * self.value.nbytes, self.at)


def issue(collective: Collective, me: Rank, tensors: Tensors, stream: str) -> Begun:
    """Begin a collective. Raises ValueError when a value does not fit the number of ranks."""
    members = me.group(collective.over)
    if len(members) == 1:
        return _alone(collective, tensors)
    group = group_of(stream, members, me.rank, tensors.device)
    value = tensors.read(collective.value)
    return _ISSUE[type(collective)](collective, Meeting(group, tensors, value, members.index(me.rank), len(members)))


def _alone(collective: Collective, tensors: Tensors) -> Begun:
    """With one rank along the axis, what is stored under another name is all that there is to do."""
    if isinstance(collective, (AllGather, ReduceScatter)) and collective.into is not None:
        tensors.write(collective.into, tensors.read(collective.value))
    if isinstance(collective, AllToAll):
        tensors.write(collective.into, tensors.read(collective.value))
        tensors.write(collective.arrived, tensors.read(collective.counts))
    return Begun(None, lambda: None)


def _all_reduce(collective: AllReduce, meeting: Meeting) -> Begun:
    value = meeting.value
    # What lies contiguous is reduced in place; anything else in a copy.
    flat = value if value.is_contiguous() else value.contiguous()

    def finish() -> None:
        if flat is not value:
            value.copy_(flat)
        _mean(collective, value, meeting.n)

    return Begun(meeting.group.allreduce([flat]), finish, meeting.sends(collective))


def _reduce_scatter(collective: ReduceScatter, meeting: Meeting) -> Begun:
    value, at, n = meeting.value, meeting.at, meeting.n
    parts = _padded(value, n) if collective.into is None else torch.stack(rows(value, n))
    mine = torch.empty_like(parts[at])
    work = meeting.group._reduce_scatter_base(mine.view(-1), parts.view(-1))

    def finish() -> None:
        _mean(collective, mine, n)
        if collective.into is not None:
            meeting.tensors.write(collective.into, mine)
            return
        part = value.reshape(-1)[slice(*bounds(value.numel(), at, n))]
        part.copy_(mine[: part.numel()])

    return Begun(work, finish, meeting.sends(collective))


def _all_gather(collective: AllGather, meeting: Meeting) -> Begun:
    if collective.into is not None:
        return _gather_all(collective, meeting)
    value, n = meeting.value, meeting.n
    parts = _padded(value, n)
    gathered = torch.empty_like(parts)
    work = meeting.group._allgather_base(gathered.view(-1), parts[meeting.at])

    def finish() -> None:
        for position in range(n):
            part = value.reshape(-1)[slice(*bounds(value.numel(), position, n))]
            part.copy_(gathered[position][: part.numel()])

    return Begun(work, finish, meeting.sends(collective))


def _gather_all(collective: AllGather, meeting: Meeting) -> Begun:
    """What all ranks bring, one after another; ragged ones tell their lengths first and are sent filled up."""
    value, n = meeting.value.contiguous(), meeting.n
    lengths = [len(value)] * n
    if collective.ragged:
        told = torch.empty(n, dtype=torch.int64, device=value.device)
        meeting.group._allgather_base(told, torch.tensor([len(value)], device=value.device)).wait()
        lengths = told.tolist()
    mine = value.new_zeros(max(lengths), *value.shape[1:])
    mine[: len(value)] = value
    gathered = value.new_empty(n, *mine.shape)
    work = meeting.group._allgather_base(gathered.view(-1), mine.view(-1))

    def finish() -> None:
        assert collective.into is not None
        meeting.tensors.write(collective.into, torch.cat([gathered[i][: lengths[i]] for i in range(n)]))

    row = float(mine[:1].nbytes)  # of mine, which has rows where anybody has: who has none passes on those of others
    sent = gathered_bytes([length * row for length in lengths], meeting.at) if collective.ragged else None
    return Begun(work, finish, meeting.sends(collective, times=n) if sent is None else sent)


def _all_to_all(collective: AllToAll, meeting: Meeting) -> Begun:
    value, tensors = meeting.value.contiguous(), meeting.tensors
    counts = tensors.read(collective.counts).to(torch.int64)
    arrived = torch.empty_like(counts)
    meeting.group.alltoall_base(arrived, counts, [], []).wait()
    came = value.new_empty(int(arrived.sum()), *value.shape[1:])
    work = meeting.group.alltoall_base(came, value, arrived.tolist(), counts.tolist())

    def finish() -> None:
        tensors.write(collective.into, came)
        tensors.write(collective.arrived, arrived)

    leaving = int(counts.sum() - counts[meeting.at])
    return Begun(work, finish, float(leaving * value[:1].nbytes))


def _broadcast(collective: Broadcast, meeting: Meeting) -> Begun:
    options = dist.BroadcastOptions()
    options.rootRank = collective.root
    return Begun(meeting.group.broadcast([meeting.value], options), lambda: None, meeting.sends(collective))


def _barrier(collective: Barrier, meeting: Meeting) -> Begun:
    options = dist.BarrierOptions()
    if meeting.value.is_cuda:  # nccl would guess a GPU from the rank
        options.device_ids = [meeting.value.get_device()]
    return Begun(meeting.group.barrier(options), lambda: None)


_ISSUE: dict[type, Callable[..., Begun]] = {
    AllReduce: _all_reduce,
    ReduceScatter: _reduce_scatter,
    AllGather: _all_gather,
    AllToAll: _all_to_all,
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
    padded = flat.new_zeros(n, max(map(len, parts)))
    for row, part in zip(padded, parts):
        row[: len(part)] = part
    return padded
