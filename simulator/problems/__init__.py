"""Small real training problems by name. Their modules, and torch with them, are loaded when asked for."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..problem import Problem

_PLACES = {
    "quadratic": ("quadratic", "quadratic"),
    "digits-mlp": ("digits", "mlp"),
    "digits-conv": ("digits", "conv"),
    "tiny-gpt": ("gpt", "tiny_gpt"),
    "tiny-moe": ("moe", "tiny_moe"),
}


def problems() -> list[str]:
    """The names that ``problem`` knows.

    >>> problems()
    ['quadratic', 'digits-mlp', 'digits-conv', 'tiny-gpt', 'tiny-moe']
    """
    return list(_PLACES)


def problem(name: str, dtype: str = "float32", **knobs: Any) -> Problem:
    """A ready-made problem: "quadratic", "digits-mlp", "digits-conv", "tiny-gpt" or "tiny-moe".

    ``dtype`` is "float32" or "float64". The knobs are those of the function that makes the problem, such as
    ``batch``, ``hidden`` or ``lr``. Raises ValueError for an unknown name or knob, listing the choices.

    Example: ``sim.problem("digits-mlp", dtype="float64", hidden=32)``
    """
    if not isinstance(name, str) or name not in _PLACES:
        raise ValueError(f"problem is one of {', '.join(_PLACES)}; got {name!r}")
    module, function = _PLACES[name]
    make = getattr(import_module(f".{module}", __name__), function)
    known = [knob for knob in signature(make).parameters if knob != "dtype"]
    if unknown := [knob for knob in knobs if knob not in known]:
        raise ValueError(f"the knobs of {name} are {', '.join(known)}; got {', '.join(unknown)}")
    made: Problem = make(dtype=dtype, **knobs)
    return made
