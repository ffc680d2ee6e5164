"""The maths of collectives, where all members' tensors are at hand."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .learning import Tensors
from .program import AllGather, AllReduce, Broadcast, Collective, ReduceScatter
from .values import bounds


def combine(instruction: Collective, members: Sequence[Tensors]) -> None:
    """The maths of a collective, for members in the order of their positions."""
    tensors = [member.read(instruction.value) for member in members]
    if isinstance(instruction, (AllReduce, ReduceScatter)):
        total = torch.stack(tensors).sum(0)
        if instruction.op == "mean":
            total /= len(members)
    for position, (member, tensor) in enumerate(zip(members, tensors)):
        part = slice(*bounds(tensor.numel(), position, len(members)))
        if isinstance(instruction, AllReduce):
            member.write(instruction.value, total)
        elif isinstance(instruction, ReduceScatter):
            tensor.reshape(-1)[part].copy_(total.reshape(-1)[part])
        elif isinstance(instruction, AllGather):
            for other in members:
                other.read(instruction.value).reshape(-1)[part].copy_(tensor.reshape(-1)[part])
        elif isinstance(instruction, Broadcast) and position != instruction.root:
            member.write(instruction.value, tensors[instruction.root].clone())
