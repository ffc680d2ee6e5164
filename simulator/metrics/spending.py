"""What a run costs: money, energy, carbon. Only the devices of the ranks count: no hosts, switches or storage."""

from __future__ import annotations

from collections.abc import Mapping
from math import fsum
from typing import TYPE_CHECKING

from .. import checks
from .timing import busy, makespan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..run import Run

Price = float | Mapping[str, float]
"""USD per device and hour: the same for all, or for each by its name."""
HOUR = 3600.0
KWH = 3.6e6
"""Joules of a kilowatt-hour."""


def cost(run: Run, price: Price | None = None) -> float:
    """Money for the run [USD]: the sum over all ranks, servers included, of price · makespan.

    - ``price``: USD per device and hour, the same for all, or a mapping from the names of the run's devices, or their
      keys in the catalogue; None: what each device costs in the catalogue, as of ``run.facts.priced``.

    Raises ValueError where nobody knows a price, and for prices of devices that the run does not have.

    >>> from simulator import DataParallel, Model, cluster, simulate
    >>> hour = Model.of_times(blocks=1, forward=1200.0, backward=2400.0)
    >>> run = simulate(DataParallel(), hour, cluster("ideal", ranks=8, device="h100-sxm"), steps=1)
    >>> round(cost(run), 2), cost(run, price=2.5), run.facts.priced
    (55.04, 20.0, '2026-03')
    >>> cost(run, price={"h100-sxm": 2.0})
    16.0
    """
    return hourly(run, price) * makespan(run) / HOUR


def hourly(run: Run, price: Price | None = None) -> float:
    """USD per hour of all devices together. Raises ValueError as ``cost``."""
    if isinstance(price, Mapping):
        prices = _by_name(run, price)
        return fsum(prices[device.name] * len(ranks) for device, ranks in run.facts.fleet)
    if price is not None:
        return checks.number("price", price, least=0, of="in USD per device and hour") * run.ranks
    if reason := unpriced(run):
        raise ValueError(reason)
    return fsum((device.price or 0.0) * len(ranks) for device, ranks in run.facts.fleet)


def _by_name(run: Run, price: Mapping[str, float]) -> dict[str, float]:
    """The price of each device of a run [USD per hour]."""
    devices = {device.name: device for device, _ in run.facts.devices}
    if not devices:
        raise ValueError(
            f"prices by name need devices; this run of {run.strategy} does not know its own: give one price= for all"
        )
    there = ", ".join(map(repr, devices))
    found: dict[str, float] = {}
    for name, each in price.items():
        named = name if name in devices else _name_of(name)
        if named not in devices:
            raise ValueError(f"price has the names of this run's devices, {there}; got {name!r}")
        found[named] = checks.number(f"price[{name!r}]", each, least=0, of="in USD per device and hour")
    if lacking := [name for name in devices if name not in found]:
        raise ValueError(f"price has one for each device of the run, {there}; got none for {', '.join(lacking)}")
    return found


def _name_of(key: object) -> str:
    """What the catalogue calls a device; "" where it has none of this key."""
    from ..catalog import device

    try:
        return device(str(key)).name
    except ValueError:
        return ""


def unpriced(run: Run) -> str:
    """Why the run has no cost; empty where it has one."""
    remedy = "give price= in USD per device and hour, or a Device with a price"
    return _absent(run, "price", "a cost needs the price of every device", remedy)


def energy(run: Run, communicating: float = 0.0) -> float:
    """Energy that the devices of all ranks draw [J]: idle power all the time, and the rest of it while computing.

        E = Σ over ranks of  idle · makespan + (power − idle) · (busy + communicating · (makespan − busy))

    - ``communicating``: the share of (power − idle) that a device draws while it communicates or waits, 0 to 1. In
      large trainings accelerators then come near idle power (Choukse et al. 2025, arXiv:2508.14318): 0 unless told.

    Where idle power is not known it is the median share of full power among the catalogue's devices. Raises ValueError
    where nobody knows a power.

    >>> from simulator import Device, Model, Pipeline, cluster, simulate
    >>> chip = Device("a chip", power=300.0, idle=100.0)
    >>> run = simulate(Pipeline(microbatches=1), Model.of_times(blocks=2), cluster("ideal", 2, device=chip), steps=1)
    >>> run.makespan, energy(run), energy(run, communicating=1)  # each rank computes half of the time
    (6.0, 2400.0, 3600.0)
    """
    return drawn(run, makespan(run), busy(run), communicating)


def drawn(run: Run, seconds: float, working: Sequence[float], communicating: float = 0.0) -> float:
    """Energy of so many seconds, of which each rank computes its part [J]. Raises ValueError as ``energy``."""
    if checks.number("communicating", communicating, least=0) > 1:
        raise ValueError(f"communicating is a share of the power above idle, 0 to 1; got {communicating}")
    if reason := unpowered(run):
        raise ValueError(reason)
    total = 0.0
    for device, ranks in run.facts.fleet:
        power, idle = device.power or 0.0, _idle(device.power or 0.0, device.idle)
        loaded = fsum(working[ranks.start : ranks.stop]) * (1 - communicating) + len(ranks) * seconds * communicating
        total += len(ranks) * seconds * idle + loaded * (power - idle)
    return total


def unpowered(run: Run) -> str:
    """Why the run has no energy; empty where it has one."""
    return _absent(run, "power", "energy needs the power of every device", "give a Device with its power in watts")


def carbon(run: Run, grid: float | str, pue: float = 1.0) -> float:
    """CO2 equivalents of the run's energy [kg]; see ``emitted``. Raises ValueError as ``energy``."""
    return emitted(energy(run), grid, pue)


def emitted(joules: float, grid: float | str, pue: float = 1.0) -> float:
    """CO2 equivalents of some energy [kg]: energy · pue · intensity of the grid.

    - ``grid``: g of CO2 equivalents per kWh, or the name of a grid in the catalogue (``catalog.grids()``).
    - ``pue``: power usage effectiveness, what the data centre draws over what its computers do; 1: no more.

    Raises ValueError for a ``pue`` below 1 and unknown grids. Source: Patterson et al. 2021 (arXiv:2104.10350).

    >>> round(emitted(433_196 * 3.6e6, grid=57) / 1000, 1)  # BLOOM: Luccioni et al. 2022 (arXiv:2211.02001) say 24.7 t
    24.7
    """
    from ..catalog import grid as known

    intensity = known(grid) if isinstance(grid, str) else checks.number("grid", grid, least=0, of="in g/kWh")
    return joules / KWH * checks.number("pue", pue, least=1) * intensity / 1000


def _idle(power: float, idle: float | None) -> float:
    if idle is not None:
        return min(idle, power)
    from ..catalog import usual_idle

    return power * usual_idle()


def _absent(run: Run, name: str, rule: str, remedy: str) -> str:
    """What to say where a fact about devices is missing; empty where none is."""
    if not run.facts.devices:
        return f"{rule}; this run of {run.strategy} does not know its devices: {remedy}"
    lacking = dict.fromkeys(device.name for device, _ in run.facts.devices if getattr(device, name) is None)
    return f"{rule}; nobody knows that of {', '.join(lacking)}: {remedy}" if lacking else ""
