"""The instruction set: what a program can say.

A program is a generator, one per rank, that yields instructions. Both machines interpret the same text: the
virtual one (``simulator.virtual``) and the real one (``lab.wall``).  Every instruction is a small frozen
dataclass that names the values it reads and writes, so a program can be listed, checked and rewritten before
any machine runs. Two instructions are equal when they say the same; the numbers that a program reads from results
(versions, staleness) do not count.

    >>> from simulator import Forward
    >>> Forward(2, microbatch=1)
    Forward(block=2, microbatch=1)
    >>> print(Forward(2, microbatch=1).reads[1])
    Act(2, mb 1)
"""

from __future__ import annotations

from .communicating import (
    AllGather,
    AllReduce,
    AllToAll,
    Barrier,
    Broadcast,
    Collective,
    Message,
    Recv,
    ReduceScatter,
    Send,
)
from .computing import Compute, Copy, Free, Measure, Reduce, Update
from .controlling import Record, Start, Until, Wait
from .instruction import ANY, Instruction
from .passes import Backward, BackwardInput, BackwardWeight, Forward, Load, Loss

__all__ = [
    "ANY",
    "AllGather",
    "AllReduce",
    "AllToAll",
    "Backward",
    "BackwardInput",
    "BackwardWeight",
    "Barrier",
    "Broadcast",
    "Collective",
    "Compute",
    "Copy",
    "Forward",
    "Free",
    "Instruction",
    "Load",
    "Loss",
    "Measure",
    "Message",
    "Record",
    "Recv",
    "Reduce",
    "ReduceScatter",
    "Send",
    "Start",
    "Until",
    "Update",
    "Wait",
]
