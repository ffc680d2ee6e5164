"""What the extras on PyTorch share with the native engine."""

from __future__ import annotations

from simulator.problem import Problem
from simulator.rank import Rank
from simulator.stack import Stack
from simulator.workload import rule_of

from ..native.log import Log
from ..native.training import Training
from ..place import Place


def training_of(place: Place, stack: Stack, problem: Problem, steps: int, seed: int) -> Training:
    """One rank's share in the training of a problem, with a log of its own."""
    rule = rule_of(stack, problem)
    me = Rank(stack, place.rank, place.ranks, problem.model(), steps, rule)
    return Training(place, me, problem, seed, rule, Log(place, steps))
