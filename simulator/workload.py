"""What is timed or learned, whichever of the two was given: its model, and its rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

from . import checks
from .model import Model
from .problem import Problem

if TYPE_CHECKING:
    from .rules import Rule
    from .stack import Stack


def model_of(workload: Model | Problem) -> Model:
    """What the virtual clock sees of it.

    >>> model_of(Model.of_times(blocks=2)).parameters
    0
    """
    check_workload(workload)
    return workload.model() if isinstance(workload, Problem) else workload


def check_workload(workload: object) -> None:
    """Raise ValueError for what is neither timed nor learned."""
    if not isinstance(workload, (Model, Problem)):
        remedy = f': write model("{workload}") or problem("{workload}")' if isinstance(workload, str) else ""
        raise ValueError(f"a workload is a Model (timed) or a Problem (learned); got {checks.shown(workload)}{remedy}")


@overload
def rule_of(whole: Stack, workload: Problem) -> Rule: ...
@overload
def rule_of(whole: Stack, workload: Model | Problem | None) -> Rule | None: ...
def rule_of(whole: Stack, workload: Model | Problem | None) -> Rule | None:
    """How parameters are updated: as the strategy says, else as the problem does; None where nobody says.

    >>> from simulator import DataParallel, rules, stack
    >>> rule_of(stack(DataParallel(rule=rules.SGD(0.1))), Model.of_times())
    SGD(lr=0.1, weight_decay=0.0)
    """
    return whole.rule or (workload.rule if isinstance(workload, Problem) else None)
