"""How long an instruction of computation takes on a device, in seconds."""

from __future__ import annotations

from .cluster import Device
from .program import Backward, Compute, Copy, Forward, Free, Instruction, Load, Loss, Reduce, Update
from .rank import Rank
from .values import Value


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
    if isinstance(instruction, (Reduce, Copy, Free)):
        return model.reduce.of(me.bytes(_touched(instruction)) / model.parameter_bytes, device)
    return instruction.seconds if isinstance(instruction, Compute) else 0.0


def _touched(instruction: Reduce | Copy | Free) -> Value:
    if isinstance(instruction, Reduce):
        return instruction.target
    return instruction.source if isinstance(instruction, Copy) else instruction.value
