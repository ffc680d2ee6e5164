"""Long trainings from short runs: what a budget of steps, samples or tokens takes, extrapolated from steady steps."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from .. import checks
from .spending import HOUR, KWH, Price, drawn, emitted, energy, hourly, unpowered, unpriced
from .summary import readable
from .timing import makespan, samples_per_step, steady_busy, steady_step, steady_times

if TYPE_CHECKING:
    from ..run import Run

DAY = 86400.0


@dataclass(frozen=True)
class Forecast:
    """What a training takes, extrapolated.

    - ``steps``, ``samples``, ``tokens``: how long it is; ``tokens`` is None where samples have none.
    - ``seconds``: how long that takes. ``cost`` [USD] and ``energy`` [J] of the devices; None where nobody knows.
    - ``basis``: what it was extrapolated from, and what it leaves out.
    """

    steps: int
    samples: int
    tokens: float | None
    seconds: float
    cost: float | None
    energy: float | None
    basis: str

    @property
    def days(self) -> float:
        """``seconds`` in days."""
        return self.seconds / DAY

    def carbon(self, grid: float | str, pue: float = 1.0) -> float:
        """CO2 equivalents [kg], as ``Run.carbon``. Raises ValueError where the energy is not known."""
        if self.energy is None:
            raise ValueError("carbon follows from energy, which is not known here: give a Device with its power")
        return emitted(self.energy, grid, pue)

    def __str__(self) -> str:
        time = f"{self.days:,.1f} days" if self.seconds >= DAY else readable(self.seconds)
        money = "" if self.cost is None else f", {_told(self.cost)} USD"
        power = "" if self.energy is None else f", {_told(self.energy / KWH)} kWh"
        return f"{self.steps:,} steps in {time}{money}{power}; {self.basis}"

    def __repr__(self) -> str:
        return f"<Forecast: {self}>"


def _told(number: float) -> str:
    """At least three significant digits."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _several(steps: int) -> str:
    return "1 step" if steps == 1 else f"{steps} steps"


def extrapolate(
    run: Run,
    steps: int | None = None,
    samples: float | None = None,
    tokens: float | None = None,
    epochs: float | None = None,
    *,
    dataset: float | None = None,
    price: Price | None = None,
    goodput: float | None = None,
) -> Forecast:
    """A whole training like this run: the run itself, and steady steps for the rest.

        seconds = (makespan + (steps − simulated steps) · steady step) / goodput

    - ``steps``, ``samples``, ``tokens`` or ``epochs``: how long it is, one of them; parts of a step count whole.
    - ``dataset``: samples in an epoch, with ``epochs``.
    - ``price``: USD per device and hour, or such prices by names of devices; None: those of the catalogue.
    - ``goodput``: the useful share of the time, as ``failures.goodput`` says; what is lost costs as much per second.

    The steady step is the mean of all after the first; of a run of one step it is that. Raises ValueError unless one
    budget is given, and for tokens where samples have none.

    >>> from simulator import DataParallel, Model, cluster, simulate
    >>> run = simulate(DataParallel(), Model.of_times(batch=64), cluster("ideal", ranks=8), steps=3)
    >>> extrapolate(run, epochs=2, dataset=6400).seconds, extrapolate(run, steps=100, goodput=0.8).seconds
    (2400.0, 1500.0)
    """
    count = _steps(run, dict(steps=steps, samples=samples, tokens=tokens, epochs=epochs), dataset)
    good = 1.0 if goodput is None else checks.number("goodput", goodput, above=0)
    if good > 1:
        raise ValueError(f"goodput is the useful share of time, at most 1; got goodput={goodput}")
    more = count - run.steps if run.steps else count
    seconds = (makespan(run) + more * steady_step(run)) / good
    return Forecast(
        steps=count,
        samples=round(count * samples_per_step(run)),
        tokens=None if run.facts.tokens is None else count * samples_per_step(run) * run.facts.tokens,
        seconds=seconds,
        cost=None if price is None and unpriced(run) else hourly(run, price) * seconds / HOUR,
        energy=None if unpowered(run) else (energy(run) + more * _energy_of_step(run)) / good,
        basis=_basis(run, goodput),
    )


def _steps(run: Run, budget: dict[str, float | None], dataset: float | None) -> int:
    """How many steps a budget is."""
    given = {name: value for name, value in budget.items() if value is not None}
    if len(given) != 1:
        raise ValueError(f"a training is so many {' or '.join(budget)}: give one of them; got {given or 'none'}")
    if (dataset is None) == ("epochs" in given):
        raise ValueError(f"dataset=, the samples of an epoch, goes with epochs=; got dataset={dataset}")
    (name, value), = given.items()
    if name == "steps":
        return checks.whole("steps", value, least=1)
    samples = checks.number(name, value, above=0)
    if dataset is not None:
        samples *= checks.number("dataset", dataset, above=0, of="in samples")
    if name == "tokens":
        samples /= _tokens(run)
    return max(1, ceil(samples / samples_per_step(run)))


def _tokens(run: Run) -> float:
    """Tokens of a sample."""
    if run.facts.tokens is None:
        raise ValueError(
            f"samples of {run.workload} have no known number of tokens: give samples= or steps= instead, or the model"
            " its tokens, as in dataclasses.replace(model, tokens=2048)"
        )
    return run.facts.tokens


def _energy_of_step(run: Run) -> float:
    return drawn(run, steady_step(run), steady_busy(run))


def _basis(run: Run, goodput: float | None) -> str:
    """What it is extrapolated from, how much that varies, and what it leaves out."""
    times = steady_times(run)
    mean = steady_step(run)
    step, apart = readable(mean), (max(times) - min(times)) / mean if mean else 0.0
    if run.steps > 1:
        many = _several(len(times))
        source = f"extrapolated from {many} after the first: {step} on average, at most {apart:.1%} apart"
    else:
        source = f"extrapolated from a single step of {step}, the first: simulate more to see what later ones take"
    if goodput is None:
        return f"{source}; failures, checkpoints and evaluation are left out"
    return f"{source}; a goodput of {goodput:.3g} is for failures and checkpoints, evaluation is left out"
