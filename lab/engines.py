"""Engines: who trains when a strategy runs for real.

``program`` interprets the strategy's own program, ``native`` does the same with PyTorch's own implementation, and the
others with another framework, which has to be installed. An engine is a module with a function
``execute(job, timeout, progress)`` that gives a Run; the module is loaded when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulator.run import Run

    from .running import Job

ENGINES: dict[str, str] = {
    "program": "lab.program",
    "native": "lab.native",
    "tensorflow": "lab.extras.tensorflow",
    "tensorflow-mirrored": "lab.extras.tensorflow_mirrored",
    "ray": "lab.extras.ray",
    "mpi": "lab.extras.mpi",
    "deepspeed": "lab.extras.deepspeed",
}
"""The names of the engines, and the modules that are them."""

Engine = Callable[["Job", float, bool], "Run"]
"""(what to do, seconds that may pass without progress, whether to show a bar) -> what was observed."""


def engine(name: str) -> Engine:
    """The ``execute`` of an engine. Raises ValueError, with the names there are, for any other.

    >>> engine("program").__module__
    'lab.program'
    """
    if not isinstance(name, str) or name not in ENGINES:
        raise ValueError(f"engine is one of {', '.join(map(repr, ENGINES))}; got engine={name!r}")
    found: Engine = import_module(ENGINES[name]).execute
    return found
