"""What all extras share: is the framework installed, does it know this strategy, and ranks that serve one run only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from simulator.stack import Layer, Order, Stack

from .. import torchrun
from ..program import everywhere

if TYPE_CHECKING:
    from ..place import Place
    from ..running import Job

LOADING = 60.0
"""Seconds that a framework may take to load and to start, beyond the timeout of a run."""


@dataclass(frozen=True)
class Extra:
    """An engine: its name, the pip extra that brings it, and what that installs: a distribution and its module.

    ``runs`` are the strategies it knows, by name, and for each the knobs that may be given: it honours them, or what is
    learned does not depend on them.
    """

    name: str
    pip: str
    distribution: str
    module: str
    runs: Mapping[str, Collection[str]]

    def accept(self, job: Job) -> None:
        """Raise ValueError when this cannot run here: a strategy it has not, under torchrun, or not installed."""
        self.fit(job.stack)
        refuse_torchrun(self.name)
        self.need()

    def need(self) -> None:
        """Raise ValueError, with the remedy, when the framework is not installed."""
        if not installed(self.module):
            raise ValueError(
                f"engine={self.name!r} needs {self.distribution}, which is not installed; in an environment of its own"
                f' run: pip install "two-clocks[{self.pip}]"'
            )

    def fit(self, stack: Stack) -> Order | Layer:
        """The one part of the strategy that is not ``Single``. ValueError when the engine has none like it."""
        parts = [part for part in stack.parts if type(part).__name__ != "Single"]
        name = type(parts[0]).__name__ if parts else "Single"
        if len(parts) != 1 or name not in self.runs:
            raise ValueError(f"engine={self.name!r} trains with {' or '.join(self.runs)}; got {stack}")
        allowed = {*self.runs[name], "rule"}
        for knob in fields(parts[0]):
            value = getattr(parts[0], knob.name)
            if knob.name not in allowed and value != knob.default:
                raise ValueError(
                    f"engine={self.name!r} knows no {knob.name} of {name}; got {knob.name}={value!r}: leave it out, or"
                    " use another engine"
                )
        return parts[0]

    def note(self, what: str) -> dict[str, str]:
        """The note of a Run that says who trained."""
        distribution = packages_distributions()[self.module][0]  # TensorFlow has several
        return {"engine": f"{self.name}: {what}, {distribution} {version(distribution)}"}


def installed(module: str) -> bool:
    """Whether a module could be imported. It is not."""
    return find_spec(module) is not None


def refuse_torchrun(name: str) -> None:
    """Raise ValueError when torchrun has started the ranks already."""
    if torchrun.inside():
        raise ValueError(f"engine={name!r} starts its own processes: run the script with plain python, not torchrun")


def ranks_once(function: Callable[..., Any], job: Job, ranks: int, timeout: float, progress: bool) -> list[Any]:
    """Call ``function(place, *job.arguments)`` on ``ranks`` local ranks, which take no other run afterwards."""
    return everywhere(partial(_once, function), replace(job, ranks=ranks), timeout + LOADING, progress)


def _once(function: Callable[..., Any], place: Place, *arguments: Any) -> Any:
    """Leave the process group at the end: a rank without one is replaced. Frameworks can be set up only once."""
    from torch import distributed

    result = function(place, *arguments)
    distributed.destroy_process_group()
    return result
