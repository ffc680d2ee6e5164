"""Two Clocks, the virtual one: simulate distributed training of deep networks.

    >>> import simulator as sim
    >>> model = sim.Model.of_times(blocks=4, forward=1.0, backward=2.0)
    >>> run = sim.simulate(sim.Pipeline("1f1b", microbatches=8), model, sim.cluster("ideal", ranks=4), steps=1)
    >>> run.makespan
    33.0
"""

from . import noise, rules, theory
from .checking import listing, validate
from .cluster import Cluster, Device, Overheads, cluster
from .errors import DivergedError, ProgramError, RankError, RunFileError
from .listing import Listing
from .model import Block, Flops, Measured, Model, Seconds
from .network import fair_rates
from .problem import Problem
from .problems import problem, problems
from .program import (
    ANY,
    AllGather,
    AllReduce,
    Backward,
    Barrier,
    Broadcast,
    Collective,
    Compute,
    Copy,
    Forward,
    Free,
    Instruction,
    Load,
    Loss,
    Message,
    Record,
    Recv,
    Reduce,
    ReduceScatter,
    Send,
    Start,
    Until,
    Update,
    Wait,
)
from .rank import Rank
from .run import Run
from .simulate import simulate
from .spans import Sample, Span, Spans
from .stack import Layer, Order, Program, Rules, Stack, stack
from .strategies import DataParallel, ParameterServer, Pipeline, Single
from .values import Act, ActGrad, Chunk, Grads, Named, Nothing, Params, Target, Value

__all__ = [
    "ANY",
    "Act",
    "ActGrad",
    "AllGather",
    "AllReduce",
    "Backward",
    "Barrier",
    "Block",
    "Broadcast",
    "Chunk",
    "Cluster",
    "Collective",
    "Compute",
    "Copy",
    "DataParallel",
    "Device",
    "DivergedError",
    "Flops",
    "Forward",
    "Free",
    "Grads",
    "Instruction",
    "Layer",
    "Listing",
    "Load",
    "Loss",
    "Measured",
    "Message",
    "Model",
    "Named",
    "Nothing",
    "Order",
    "Overheads",
    "ParameterServer",
    "Params",
    "Pipeline",
    "Problem",
    "Program",
    "ProgramError",
    "Rank",
    "RankError",
    "Record",
    "Recv",
    "Reduce",
    "ReduceScatter",
    "Rules",
    "Run",
    "RunFileError",
    "Sample",
    "Seconds",
    "Send",
    "Single",
    "Span",
    "Spans",
    "Stack",
    "Start",
    "Target",
    "Until",
    "Update",
    "Value",
    "Wait",
    "cluster",
    "fair_rates",
    "listing",
    "noise",
    "problem",
    "problems",
    "rules",
    "simulate",
    "stack",
    "theory",
    "validate",
]
