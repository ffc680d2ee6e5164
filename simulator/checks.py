"""Checks of arguments: one wording for all. Each says the rule and the value, and gives the value back."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from numbers import Integral, Real
from typing import Any


def whole(name: str, value: object, least: int = 0, of: str = "") -> int:
    """A whole number of at least ``least``, else ValueError. ``of`` begins the message: whose argument it is.

    >>> whole("steps", 10, least=1)
    10
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{_of(of)}{name} is a whole number, at least {least}; got {name}={value!r}")
    return int(value)


def number(name: str, value: object, least: float = -inf, above: float = -inf, of: str = "") -> float:
    """A finite number of at least ``least`` and above ``above``, else ValueError.

    >>> number("latency", 1e-5, least=0)
    1e-05
    """
    finite = not isinstance(value, bool) and isinstance(value, Real) and -inf < float(value) < inf
    if not finite or float(value) < least or float(value) <= above:  # type: ignore[arg-type]
        bound = f", above {above:g}" if above > -inf else f", at least {least:g}" if least > -inf else ""
        raise ValueError(f"{_of(of)}{name} is a finite number{bound}; got {name}={value!r}")
    return float(value)  # type: ignore[arg-type]


def kind(name: str, value: object, wanted: type | tuple[type, ...], example: str) -> None:
    """Something of the wanted type, else ValueError with an example."""
    if not isinstance(value, wanted):
        raise ValueError(f"{name} is {example}; got {name}={shown(value)}")


def several(name: str, value: object, example: str) -> list[Any]:
    """What an iterable gives, as a list; ValueError for text and for what is none."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ValueError(f"{name} is {example}; got {name}={shown(value)}")
    return list(value)


def shown(value: object, most: int = 200) -> str:
    """The repr of a value, cut where it is too long for a message."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"


def _of(of: str) -> str:
    return f"{of}: " if of else ""
