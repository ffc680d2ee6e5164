"""Checks that the problems share."""

from __future__ import annotations

from math import isfinite


def require_counts(name: str, **counts: int) -> None:
    """Raise ValueError unless every knob is a whole number of at least one."""
    for knob, value in counts.items():
        if not (isinstance(value, int) and value >= 1):
            raise ValueError(f"{name}: {knob} is a whole number, at least 1; got {knob}={value!r}")


def require_numbers(name: str, **numbers: float) -> None:
    """Raise ValueError unless every knob is a finite number."""
    for knob, value in numbers.items():
        if not isfinite(value):
            raise ValueError(f"{name}: {knob} is a finite number; got {knob}={value!r}")
