"""How long an instruction of computation takes on a device, in seconds."""

from __future__ import annotations

from collections.abc import Sequence

from .cluster import Device
from .model import Block
from .operations import Operations
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
from .values import Inner, InnerGrad, Named, Value, whole
from .work import Work


def seconds(instruction: Instruction, me: Rank, device: Device) -> float:
    """The time of one computation, without noise. Instructions whose work a model does not give take no time."""
    model = me.model
    if isinstance(instruction, (Forward, Backward, BackwardInput, BackwardWeight, ForwardPart, BackwardPart)):
        return of_pass(instruction, model.blocks[instruction.block], me.samples(instruction.microbatch), device)
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


def changing(instruction: Instruction) -> bool:
    """Whether it takes another time whenever what it touches has another size, as named buffers have."""
    return isinstance(instruction, (Reduce, Copy, Free)) and isinstance(
        whole(_touched(instruction)), (Named, Inner, InnerGrad)
    )


def _own(compute: Compute, me: Rank, device: Device) -> float:
    """The time of a program's own maths."""
    return compute.seconds + (compute.work.of(me.samples(0), device) if compute.work is not None else 0.0)


def of_pass(instruction: Instruction, block: Block, samples: float, device: Device) -> float:
    """The time of one microbatch of so many samples through a block, or through a half or a part of it."""
    if isinstance(instruction, Forward):
        return _issued([block.forward], samples, device)
    if isinstance(instruction, (ForwardPart, BackwardPart)):
        return _of_part(instruction, block, samples, device)
    again = _issued([block.forward], samples, device) if block.recomputes else 0.0
    whole = _issued([block.backward], samples, device)
    if isinstance(instruction, Backward):
        return again + whole
    weight = block.later.of(samples, device) * _waiting([block.backward], samples, device)
    return weight if isinstance(instruction, BackwardWeight) else again + whole - weight


def _of_part(instruction: ForwardPart | BackwardPart, block: Block, samples: float, device: Device) -> float:
    """The time of one part, which waits with all others where a program is slow to issue them."""
    goes = isinstance(instruction, ForwardPart)
    mine = block.parts[instruction.at]
    seconds = (mine.forward if goes else mine.backward).of(samples, device)
    if not device.dispatch:
        return seconds
    works = [part.forward if goes else part.backward for part in block.parts]
    return seconds * _waiting(works, samples, device)


def _issued(works: Sequence[Work], samples: float, device: Device) -> float:
    """The time of some work: that of the device, or that of the program that issues its operations, if it is longer."""
    done = sum(work.of(samples, device) for work in works)
    if not device.dispatch:
        return done
    return max(done, device.dispatch * sum(work.issued for work in works if isinstance(work, Operations)))


def _waiting(works: Sequence[Work], samples: float, device: Device) -> float:
    """By how much a block of these parts takes longer than its operations, since a program has to issue them.

    A program runs ahead of the device: only where all of them together are too short does the device wait.
    """
    done = sum(work.of(samples, device) for work in works) if device.dispatch else 0.0
    return _issued(works, samples, device) / done if done else 1.0


def _touched(instruction: Reduce | Copy | Free) -> Value:
    if isinstance(instruction, Reduce):
        return instruction.target
    return instruction.source if isinstance(instruction, Copy) else instruction.value
