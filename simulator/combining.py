"""The maths of collectives, where all members' tensors are at hand."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .learning import Tensors
from .program import AllGather, AllReduce, AllToAll, Broadcast, Collective, ReduceScatter
from .values import bounds


def combine(instruction: Collective, members: Sequence[Tensors]) -> None:
    """The maths of a collective, for members in the order of their positions."""
    tensors = [member.read(instruction.value) for member in members]
    if isinstance(instruction, AllToAll):
        _exchange(instruction, members, tensors)
    elif isinstance(instruction, AllGather):
        _gather(instruction, members, tensors)
    elif isinstance(instruction, (AllReduce, ReduceScatter)):
        total = torch.stack(tensors).sum(0)
        if instruction.op == "mean":
            total /= len(members)
        for position, member in enumerate(members):
            _keep(instruction, member, total, position, len(members))
    elif isinstance(instruction, Broadcast):
        for position, member in enumerate(members):
            if position != instruction.root:
                member.write(instruction.value, tensors[instruction.root].clone())


def _keep(
    instruction: AllReduce | ReduceScatter, member: Tensors, total: torch.Tensor, position: int, of: int
) -> None:
    """What one member keeps of a sum."""
    if isinstance(instruction, AllReduce):
        member.write(instruction.value, total.clone())
    elif instruction.into is not None:
        member.write(instruction.into, rows(total, of)[position].clone())
    else:
        part = slice(*bounds(total.numel(), position, of))
        member.read(instruction.value).reshape(-1)[part].copy_(total.reshape(-1)[part])


def _gather(instruction: AllGather, members: Sequence[Tensors], tensors: Sequence[torch.Tensor]) -> None:
    for position, (member, tensor) in enumerate(zip(members, tensors)):
        if instruction.into is not None:
            member.write(instruction.into, torch.cat(list(tensors)))
            continue
        part = slice(*bounds(tensor.numel(), position, len(members)))
        for other in members:
            other.read(instruction.value).reshape(-1)[part].copy_(tensor.reshape(-1)[part])


def _exchange(instruction: AllToAll, members: Sequence[Tensors], tensors: Sequence[torch.Tensor]) -> None:
    counts = [member.read(instruction.counts).tolist() for member in members]
    sent = [tensor.split(numbers) for tensor, numbers in zip(tensors, counts)]
    for position, member in enumerate(members):
        member.write(instruction.into, torch.cat([parts[position] for parts in sent]))
        arrived = torch.tensor([numbers[position] for numbers in counts])
        member.write(instruction.arrived, arrived)


def rows(tensor: torch.Tensor, of: int) -> tuple[torch.Tensor, ...]:
    """A tensor in as many equal parts of its rows: all dimensions but the last. Raises ValueError where it has none."""
    table = tensor.reshape(-1, tensor.shape[-1]) if tensor.dim() > 1 else tensor
    if len(table) % of:
        raise ValueError(
            f"rows are shared evenly; got {len(table)} rows (samples × tokens) of shape {tuple(tensor.shape)} for {of}"
            " ranks: use another batch, sequence or number of microbatches"
        )
    return table.chunk(of)
