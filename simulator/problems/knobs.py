"""Checks that the problems share."""

from __future__ import annotations

from .. import checks


def require_counts(name: str, **counts: int) -> None:
    """Raise ValueError unless every knob is a whole number of at least one."""
    for knob, value in counts.items():
        checks.whole(knob, value, least=1, of=name)


def require_numbers(name: str, **numbers: float) -> None:
    """Raise ValueError unless every knob is a finite number."""
    for knob, value in numbers.items():
        checks.number(knob, value, of=name)
