"""One rank's work for the native engine."""

from __future__ import annotations

from simulator.problem import Problem
from simulator.rank import Rank
from simulator.rules import Rule
from simulator.stack import Stack
from simulator.workload import rule_of

from ..place import Place
from ..wall import Observed, warm_up
from .choosing import Choice, choose
from .log import Log
from .training import Training


def run_rank(place: Place, stack: Stack, problem: Problem, steps: int, seed: int) -> Observed:
    """Train with PyTorch's own implementation of a strategy. Called in every rank at once."""
    rule = rule_of(stack, problem)
    warm_up(rule)
    me = Rank(stack, place.rank, place.ranks, problem.model(), steps, rule)
    axes = [axis for axis, size in me.grid.items() if size == place.ranks]
    log = Log(place, steps, axes[0] if axes else "world")
    choice = choose(stack)
    _check_rule(rule, choice)
    pieces = choice.train(Training(place, me, problem, seed, rule, log))
    return Observed(log.spans, log.samples, [], pieces, log.clock.error)


WHOLE = ("replicated.single", "replicated.data_parallel", "replicated.post_local")
"""Where every rank updates the whole model."""


def _check_rule(rule: Rule, choice: Choice) -> None:
    """Refuse rules that ask for more than one vector of numbers, where a rank has but a part of the model."""
    plain = rule.elementwise and not rule.per_tensor and rule.loss_scale() == 1
    if not plain and choice.function not in WHOLE:
        raise ValueError(
            f"under {choice.text} a rank updates a part of the model, where each number follows its own gradient alone;"
            f" got {rule}: use SGD, Momentum or Adam, or engine='program'"
        )
