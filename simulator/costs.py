"""How long an instruction of computation takes on a device, in seconds."""

from __future__ import annotations

from .cluster import Device
from .model import Block
from .passes import BackwardPart, ForwardPart
from .program import (
    Backward,
    BackwardInput,
    BackwardWeight,
    Compute,
    Copy,
    Forward,
    Free,
    Instruction,
    Load,
    Loss,
    Reduce,
    Update,
)
from .rank import Rank
from .values import Value


def seconds(instruction: Instruction, me: Rank, device: Device) -> float:
    """The time of one computation, without noise. Instructions whose work a model does not give take no time."""
    model = me.model
    if isinstance(instruction, (Forward, Backward, BackwardInput, BackwardWeight, ForwardPart, BackwardPart)):
        return _pass(instruction, model.blocks[instruction.block], me.samples(instruction.microbatch), device)
    if isinstance(instruction, Load):
        first = instruction.microbatch % me.microbatches == 0  # which pays for all of the step
        return model.load.of(me.samples(0) * me.microbatches, device) if first else 0.0
    if isinstance(instruction, Loss):
        return model.loss.of(me.samples(instruction.microbatch), device)
    if isinstance(instruction, Update):
        return model.update.of(me.elements(instruction.params), device)
    if isinstance(instruction, (Reduce, Copy, Free)):
        return model.reduce.of(me.bytes(_touched(instruction)) / me.width(_touched(instruction)), device)
    return _own(instruction, me, device) if isinstance(instruction, Compute) else 0.0


def _own(compute: Compute, me: Rank, device: Device) -> float:
    """The time of a program's own maths."""
    return compute.seconds + (compute.work.of(me.samples(0), device) if compute.work is not None else 0.0)


def _pass(instruction: Instruction, block: Block, samples: float, device: Device) -> float:
    """The time of one microbatch through a block, or through a half or a part of it."""
    if isinstance(instruction, Forward):
        return block.forward.of(samples, device)
    again = block.forward.of(samples, device) if block.recomputes else 0.0
    if isinstance(instruction, Backward):
        return again + block.backward.of(samples, device)
    if isinstance(instruction, ForwardPart):
        return block.parts[instruction.at].forward.of(samples, device)
    if isinstance(instruction, BackwardPart):
        return block.parts[instruction.at].backward.of(samples, device)
    weight = block.later.of(samples, device)
    return weight if isinstance(instruction, BackwardWeight) else again + block.backward.of(samples, device) - weight


def _touched(instruction: Reduce | Copy | Free) -> Value:
    if isinstance(instruction, Reduce):
        return instruction.target
    return instruction.source if isinstance(instruction, Copy) else instruction.value
