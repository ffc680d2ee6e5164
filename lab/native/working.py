"""One rank's work for the native engine."""

from __future__ import annotations

from simulator.problem import Problem
from simulator.stack import Stack

from ..observed import Observed
from ..place import Place
from .choosing import choose
from .training import Training


def run_rank(place: Place, stack: Stack, problem: Problem, steps: int, seed: int) -> Observed:
    """Train with PyTorch's own implementation of a strategy. Called in every rank at once."""
    training = Training.of(place, stack, problem, steps, seed)
    return training.observed(choose(stack).train(training))
