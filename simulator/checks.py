"""Checks of arguments: one wording for all. Each says the rule and the value, and gives the value back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from math import inf
from numbers import Integral, Real
from typing import Any


def whole(name: str, value: object, least: int = 0, of: str = "") -> int:
    """A whole number of at least ``least``, else ValueError. ``of`` begins the message: whose argument it is.

    >>> whole("steps", 10, least=1)
    10
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{_of(of)}{name} is a whole number, at least {least}; got {name}={shown(value)}")
    return int(value)


def number(name: str, value: object, least: float = -inf, above: float = -inf, of: str = "") -> float:
    """A finite number of at least ``least`` and above ``above``, else ValueError.

    >>> number("latency", 1e-5, least=0)
    1e-05
    """
    finite = not isinstance(value, bool) and isinstance(value, Real) and -inf < float(value) < inf
    if not finite or float(value) < least or float(value) <= above:  # type: ignore[arg-type]
        bound = f", above {above:g}" if above > -inf else f", at least {least:g}" if least > -inf else ""
        raise ValueError(f"{_of(of)}{name} is a finite number{bound}; got {name}={shown(value)}")
    return float(value)  # type: ignore[arg-type]


OWN = {int, float, bool, str, type(None), tuple}
"""The types of most fields: quicker to tell by than by what a number is."""


def owned(record: object) -> None:
    """Make the numbers of a frozen dataclass Python's own: numpy's int32 overflows, and its float32 rounds."""
    for name, value in vars(record).items():
        if type(value) not in OWN and isinstance(value, Real):
            object.__setattr__(record, name, int(value) if isinstance(value, Integral) else float(value))


def share_kept(name: str, value: object, of: str) -> float:
    """A share kept of the past, ``0 <= value < 1``, such as a momentum; else ValueError.

    >>> share_kept("momentum", 0.9, of="Momentum")
    0.9
    """
    kept = number(name, value, of=of)
    if not 0 <= kept < 1:
        raise ValueError(
            f"{of}: {name} is the share kept of the past, 0 <= {name} < 1 (at 1 nothing is ever forgotten);"
            f" got {name}={value}; 0.9 is usual"
        )
    return kept


def kind(name: str, value: object, wanted: type | tuple[type, ...], example: str) -> None:
    """Something of the wanted type, else ValueError with an example."""
    if not isinstance(value, wanted):
        raise ValueError(f"{name} is {example}; got {name}={shown(value)}")


def flag(name: str, value: object, example: str = "True or False") -> bool:
    """True or False, numpy's own among them, else ValueError.

    >>> flag("fold", True)
    True
    """
    if isinstance(value, bool) or (type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_")):
        return bool(value)
    raise ValueError(f"{name} is {example}; got {name}={shown(value)}")


def flags(record: Any) -> None:
    """Refuse a field of a dataclass that is declared to be True or False, and is neither."""
    for knob in fields(record):
        if knob.type in ("bool", bool):
            flag(knob.name, getattr(record, knob.name), f"True or False, of {type(record).__name__}")


def one_of(name: str, value: object, choices: Iterable[object]) -> None:
    """One of a few words, else ValueError that names them.

    >>> one_of("detail", "flow", ("flow", "messages"))
    """
    known = list(choices)
    if value not in known:
        raise ValueError(f"{name} is one of {', '.join(map(repr, known))}; got {name}={shown(value)}")


def comparable(name: str, value: object, remedy: str) -> None:
    """Something that has a hash, else ValueError: instructions are compared with each other.

    >>> comparable("function", max, "a function")
    """
    try:
        hash(value)
    except TypeError as error:
        raise ValueError(
            f"instructions are compared, so {name} has a hash: give {remedy}; got {name}={shown(value)} ({error})"
        ) from None


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
