"""Process groups: one for every stream and set of ranks that programs use."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store, _set_pg_timeout, _world

_groups: dict[tuple[str, tuple[int, ...], str], Any] = {}
"""Process groups of this process, kept from run to run: one per stream, members and device."""


def group_of(stream: str, members: tuple[int, ...], rank: int, device: str) -> Any:
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
        known = _groups[stream, members, kind] = make(store, members.index(rank), len(members), timeout=waiting_time())
    known._set_default_timeout(waiting_time())
    return known


def waiting_time() -> timedelta:
    """How long members of a group wait for each other: whoever started the ranks has told the default group."""
    world: Any = dist.group.WORLD
    return cast(timedelta, world._get_backend(torch.device("cpu")).options._timeout)


def wait_at_most(seconds: float) -> None:
    """From now on the members of every process group wait for each other at most so long."""
    for group in list(_world.pg_map):
        _set_pg_timeout(timedelta(seconds=seconds), group)


def held_groups() -> int:
    """How many process groups of its own this process holds."""
    return len(_groups)


def forget_groups() -> None:
    """Let go of all process groups, before the interpreter ends."""
    _groups.clear()


def _nccl(store: Any, rank: int, size: int, timeout: timedelta) -> Any:
    backend: Any = dist.ProcessGroupNCCL
    options = backend.Options()
    options._timeout = timeout
    return backend(store, rank, size, options)
