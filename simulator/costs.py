"""How long an instruction of computation takes on a device, in seconds."""

from __future__ import annotations

from .cluster import Device
from .program import Backward, Compute, Forward, Instruction, Load, Loss, Update
from .rank import Rank


def seconds(instruction: Instruction, me: Rank, device: Device) -> float:
    """The time of one computation, without noise. Instructions whose work a model does not give take no time."""
    model = me.model
    if isinstance(instruction, Forward):
        return model.blocks[instruction.block].forward.of(me.samples(instruction.microbatch), device)
    if isinstance(instruction, Backward):
        return model.blocks[instruction.block].backward.of(me.samples(instruction.microbatch), device)
    if isinstance(instruction, Load):
        return 0.0 if instruction.microbatch else model.load.of(me.samples(0) * me.microbatches, device)
    if isinstance(instruction, Loss):
        return model.loss.of(me.samples(instruction.microbatch), device)
    if isinstance(instruction, Update):
        return model.update.of(me.elements(instruction.params), device)
    return instruction.seconds if isinstance(instruction, Compute) else 0.0
