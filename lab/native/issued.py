"""What PyTorch's collectives send, told from their arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from simulator.collectives import critical_bytes, sent_bytes
from simulator.program import AllGather, AllReduce, Broadcast, ReduceScatter
from simulator.values import Nothing


@dataclass(frozen=True)
class Issued:
    """A collective or message: its kind, the group, the numbers in it, and the bytes that this rank sends for it.

    ``peer`` is the other rank of a message. Bytes are those of the ring (and, for a broadcast, of the binomial tree) of
    ``simulator.collectives``, whatever the backend does inside.
    """

    kind: str
    group: Any
    elements: int
    nbytes: float
    peer: int | None = None


Reader = Callable[[Any, dict[str, Any]], Issued]
"""(process group, arguments by name) -> what is issued."""


# ---------------------------------------------------------------- what the arguments say


def _size(tensors: Any) -> tuple[int, int]:
    """(elements, bytes) of a tensor or of nested lists of tensors."""
    if isinstance(tensors, torch.Tensor):
        return tensors.numel(), tensors.numel() * tensors.element_size()
    sizes = [_size(inner) for inner in tensors]
    return sum(elements for elements, _ in sizes), sum(nbytes for _, nbytes in sizes)


def _ring(kind: Any, name: str, group: Any, arguments: dict[str, Any], scale: int = 1) -> Issued:
    """Whatever goes around a ring. ``scale``: how many times the argument the whole buffer is."""
    elements, nbytes = _size(arguments[name])
    return Issued(kind.__name__, group, scale * elements, critical_bytes(kind, group.size(), scale * nbytes))


def _broadcast(name: str, root: str, group: Any, arguments: dict[str, Any]) -> Issued:
    elements, nbytes = _size(arguments[name])
    kind = Broadcast(Nothing(), over="world", root=arguments[root])
    return Issued("Broadcast", group, elements, sent_bytes(kind, group.size(), nbytes, group.rank()))


def _to_root(name: str, root: str, group: Any, arguments: dict[str, Any]) -> Issued:
    """Everybody but the root sends what it has once."""
    elements, nbytes = _size(arguments[name])
    return Issued("Reduce", group, elements, 0.0 if group.rank() == arguments[root] else float(nbytes))


def _from_root(group: Any, arguments: dict[str, Any]) -> Issued:
    """The root sends every other rank a part."""
    elements, nbytes = _size(arguments["input_tensors"])
    return Issued("Scatter", group, elements, nbytes * (group.size() - 1) / group.size())


def _all_to_all(name: str, splits: str, group: Any, arguments: dict[str, Any]) -> Issued:
    elements, nbytes = _size(arguments[name])
    parts = arguments.get(splits) or [1] * group.size()
    return Issued("AllToAll", group, elements, nbytes * (1 - parts[group.rank()] / max(1, sum(parts))))


def _message(kind: str, other: str, group: Any, arguments: dict[str, Any]) -> Issued:
    elements, nbytes = _size(arguments["tensors"])
    peer = dist.get_global_rank(group, arguments[other]) if other in arguments else None
    return Issued(kind, group, elements, float(nbytes) if kind == "Send" else 0.0, peer)


def _barrier(group: Any, arguments: dict[str, Any]) -> Issued:
    return Issued("Barrier", group, 0, 0.0)


def _gathered(group: Any, arguments: dict[str, Any]) -> Issued:
    return _ring(AllGather, "input", group, arguments, scale=group.size())


def _gathered_together(group: Any, arguments: dict[str, Any]) -> Issued:
    return _ring(AllGather, "inputs", group, arguments, scale=group.size())


GROUPS: dict[str, Reader] = {
    "allreduce_": partial(_ring, AllReduce, "tensors"),
    "allreduce_coalesced_": partial(_ring, AllReduce, "tensors"),
    "allgather_": partial(_ring, AllGather, "output_tensors"),
    "allgather_coalesced_": partial(_ring, AllGather, "output_lists"),
    "_allgather_base_": partial(_ring, AllGather, "output_tensor"),
    "allgather_into_tensor_coalesced_": partial(_ring, AllGather, "outputs"),
    "reduce_scatter_": partial(_ring, ReduceScatter, "input_tensors"),
    "_reduce_scatter_base_": partial(_ring, ReduceScatter, "input_tensor"),
    "reduce_scatter_tensor_coalesced_": partial(_ring, ReduceScatter, "inputs"),
    "broadcast_": partial(_broadcast, "tensors", "root_rank"),
    "reduce_": partial(_to_root, "tensors", "root_rank"),
    "gather_": partial(_to_root, "input_tensors", "root_rank"),
    "scatter_": _from_root,
    "alltoall_base_": partial(_all_to_all, "input", "input_split_sizes"),
    "send": partial(_message, "Send", "dst"),
    "recv_": partial(_message, "Recv", "src"),
    "recv_any_source_": partial(_message, "Recv", "nobody"),
    "barrier": _barrier,
}
"""Operations of ``torch.ops.c10d``."""

FUNCTIONAL: dict[str, Reader] = {
    "all_reduce": partial(_ring, AllReduce, "input"),
    "all_reduce_": partial(_ring, AllReduce, "input"),
    "all_reduce_coalesced": partial(_ring, AllReduce, "inputs"),
    "all_gather_into_tensor": _gathered,
    "all_gather_into_tensor_coalesced": _gathered_together,
    "reduce_scatter_tensor": partial(_ring, ReduceScatter, "input"),
    "reduce_scatter_tensor_coalesced": partial(_ring, ReduceScatter, "inputs"),
    "broadcast": partial(_broadcast, "input", "src"),
    "all_to_all_single": partial(_all_to_all, "input", "input_split_sizes"),
}
"""Operations of ``torch.ops._c10d_functional``; ``wait_tensor`` ends them."""
