"""What one simulation says: the numbers of a row, or why there are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import fsum, isnan, nan
from typing import Any

from ..run import Run
from ..simulate import simulate
from .cases import Case, Impossible
from .interval import interval

Answer = dict[str, Any]
"""{"numbers": {name: number}} or {"error": text}; it can be written as JSON."""
STEPS = 2
"""How many steps are simulated where nobody says: without noise the second is like all later ones."""


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values) if values else 0.0


NUMBERS: dict[str, Callable[[Run], float]] = {
    "step_time": lambda run: run.makespan / run.steps,
    "throughput": lambda run: run.throughput,
    "mfu": lambda run: run.mfu,
    "hfu": lambda run: run.hfu,
    "bubble": lambda run: run.bubble,
    "exposed_communication": lambda run: _mean(run.exposed_communication) / run.steps,
    "bytes_sent": lambda run: max(run.bytes_sent) / run.steps,
    "peak_memory": lambda run: max(run.peak_memory),
    "cost": lambda run: run.cost() / run.steps,
    "energy": lambda run: run.energy / run.steps,
}
"""All per step: seconds, samples per second, shares, bytes that the busiest rank sends, bytes that the fullest one
holds, USD and joules."""
CERTAIN = ("bytes_sent", "peak_memory")
"""The same whatever chance does."""


def answer(case: Case, seed: int) -> Answer:
    """Simulate one case with one seed."""
    if isinstance(case.cluster, Impossible):
        return {"error": case.cluster.reason}
    try:
        run = simulate(case.strategy, case.model, case.cluster, seed=seed, **{"steps": STEPS, **case.knobs})
    except ValueError as error:  # and ProgramError, DivergedError
        return {"error": str(error)}
    return {"numbers": {name: _number(run, of) for name, of in NUMBERS.items()}}


def _number(run: Run, of: Callable[[Run], float]) -> float:
    """NaN where a run does not know: a model without FLOPs, a device without a price."""
    try:
        return float(of(run))
    except ValueError:
        return nan


def _interval(values: Sequence[float]) -> tuple[float, float, float]:
    """None of the numbers can be below zero, so neither are their bounds."""
    mean, low, high = interval(values)
    return mean, low if isnan(low) else max(0.0, low), high


def row(answers: Sequence[Answer]) -> dict[str, Any]:
    """The columns of one case from its answers, one for each seed; with several, means and their intervals."""
    errors = [one["error"] for one in answers if "error" in one]
    numbers: dict[str, Any] = {}
    for name in NUMBERS:
        bounds = () if len(answers) == 1 or name in CERTAIN else ("_low", "_high")
        values = (nan, nan, nan) if errors else _interval([one["numbers"][name] for one in answers])
        numbers |= {name + end: value for end, value in zip(("", *bounds), values)}
    return {**numbers, "error": errors[0] if errors else ""}
