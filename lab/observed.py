"""What every engine on PyTorch begins and ends with: a rank's tensors, torch warm, and what the rank brings back."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from simulator.learning import Batches, Tensors
from simulator.rank import Rank
from simulator.workload import rule_of

if TYPE_CHECKING:
    from simulator.holdings import Piece
    from simulator.problem import Problem
    from simulator.rules import Rule
    from simulator.spans import Sample, Spans
    from simulator.stack import Stack

    from .place import Place


@dataclass
class Observed:
    """What one rank brings back from a run."""

    spans: Spans
    samples: list[Sample]
    outcomes: list[int]
    pieces: list[Piece]
    clock_error: float
    buffers: dict[str, Any] = field(default_factory=dict)


def placed(place: Place, stack: Stack, problem: Problem, steps: int) -> tuple[Rank, Rule]:
    """The rank of a place and the rule by which it learns, with torch warm."""
    rule = rule_of(stack, problem)
    warm_up(rule)
    return Rank(stack, place.rank, place.ranks, problem.model(), steps, rule), rule


def prepared(place: Place, stack: Stack, problem: Problem, steps: int, seed: int) -> tuple[Rank, Tensors]:
    """A rank and its tensors, with torch warm."""
    me, _ = placed(place, stack, problem, steps)
    return me, Tensors(me, problem, seed, Batches(problem, seed), place.device)


@lru_cache(maxsize=64)
def warm_up(rule: Rule) -> None:
    """Let torch load what it loads on first use (1 to 2 s for optimizers), before time counts."""
    leaf: torch.Tensor = torch.nn.Parameter(torch.zeros(2))
    leaf.grad = torch.zeros(2)
    rule.step(rule.optimizer([("0.", leaf)] if rule.per_tensor else [leaf]))
