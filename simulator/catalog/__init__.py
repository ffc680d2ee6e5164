"""Facts as data: accelerators, links and protocols, each number with its unit and its source."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..clusters.device import Device, half
from ..clusters.wiring import Speed
from .reading import Entry, own, read
from .units import QUANTITIES, SPEED, TEXTS, canonical

if TYPE_CHECKING:
    import pandas

__all__ = ["Entry", "device", "devices", "find", "grid", "grids", "link", "own", "read", "usual_fraction", "usual_idle"]

ACCELERATORS = ("gpu", "tpu", "npu", "cpu")


def devices(path: str | Path | None = None) -> pandas.DataFrame:
    """The catalogue as a table: accelerators, network cards and buses, by key.

    - ``path``: a .toml or .csv file of your own, whose entries come before those of the catalogue.

    Columns carry their units, all in SI units; link bandwidths are those of one direction. ``confirmed`` is False where
    a number comes from memory, and ``unconfirmed`` names which. Raises ValueError for a file with unknown keys, missing
    units or absent sources.

    >>> table = devices()
    >>> float(table.loc["h100-sxm", "memory_B"]), table.loc["h100-sxm", "source"][:23]
    (80000000000.0, 'stas00/ml-engineering c')
    """
    import pandas

    rows = _entries(path)
    names = [name for name in (*QUANTITIES, *TEXTS) if any(name in e.numbers or name in e.texts for e in rows.values())]
    table = {
        canonical(name): [entry.numbers.get(name, entry.texts.get(name)) for entry in rows.values()] for name in names
    }
    table["confirmed"] = [not entry.unconfirmed for entry in rows.values()]
    return pandas.DataFrame(table, index=pandas.Index(rows, name="key"))


def device(key: str, path: str | Path | None = None) -> Device:
    """A device by its key in the catalogue, or in a file of your own.

    Its ``flops`` are what large matrix products reach: measured, where somebody has, else the peak times the median
    of all fractions that were measured.

    >>> device("h100-sxm").peak("bf16"), device("h100-sxm").memory, round(device("h100-sxm").efficiency, 2)
    (989000000000000.0, 80000000000.0, 0.8)
    """
    entry = find(key, path)
    if entry.texts["kind"] not in ACCELERATORS:
        kind = entry.texts["kind"]
        remedy = f"use simulator.catalog.link({key!r})" if "link_bandwidth" in entry.numbers else "mend its kind"
        raise ValueError(f"a device computes; {key!r} is a {kind}, none of {', '.join(ACCELERATORS)}: {remedy}")
    peaks = {name: entry.numbers[name] for name in QUANTITIES if QUANTITIES[name] is SPEED and name in entry.numbers}
    for measured in ("matmul", "matmul_fp8"):
        peaks.pop(measured, None)
    if not peaks:
        raise ValueError(f"{key!r} needs a peak, such as bf16_TFLOP_per_s; got {', '.join(entry.numbers)}")
    top = half(peaks)
    return Device(
        name=entry.texts.get("name", key),
        flops=entry.get("matmul") or top * usual_fraction(),
        peaks=peaks,
        memory=entry.get("memory"),
        bandwidth=entry.get("memory_bandwidth"),
        efficiency=_fraction(entry, "matmul", top),
        efficiency_fp8=_fraction(entry, "matmul_fp8", peaks.get("fp8")),
        overhead=entry.get("kernel_overhead") or 0.0,
        dispatch=entry.get("dispatch") or 0.0,
        price=entry.get("price"),
        priced=entry.texts.get("price_date"),
        power=entry.get("power"),
        idle=entry.get("idle_power"),
    )


def link(key: str, path: str | Path | None = None) -> Speed:
    """The speed of a link by its key, or of the link that a device brings along: one direction.

    >>> link("ib-hdr").bandwidth, round(link("a100-sxm-80gb").efficiency, 2)
    (25000000000.0, 0.78)
    """
    entry = find(key, path)
    bandwidth = entry["link_bandwidth"]
    achieved = entry.get("link_achieved") or bandwidth
    return Speed(bandwidth, entry.get("link_latency") or 0.0, achieved / bandwidth)


def grid(key: str) -> float:
    """What a grid emits for electricity: grams of CO2 equivalents per kWh, averaged over a year.

    Raises ValueError for unknown names.

    >>> grid("france")
    56.0
    """
    known, asked = own("grids"), key
    key = next((name for name in known if name.lower() == key.strip().lower()), key)
    if key not in known:
        names = ", ".join(known)
        raise ValueError(f"no grid is called {asked!r}; the catalogue has {names}: or give a number in g/kWh")
    return known[key]["carbon"]


def grids() -> pandas.DataFrame:
    """The grids of the catalogue: what they emit [g of CO2 equivalents per kWh], in which year, and who says so."""
    import pandas

    rows = {key: {"carbon_g_per_kWh": entry["carbon"], **entry.texts} for key, entry in own("grids").items()}
    return pandas.DataFrame.from_dict(rows, orient="index")


def find(key: str, path: str | Path | None = None) -> Entry:
    """An entry by its key. Raises ValueError that names the keys that come close."""
    entries = _entries(path)
    if not isinstance(key, str) or key not in entries:
        from difflib import get_close_matches

        close = [name for name in entries if isinstance(key, str) and key and key in name]
        names = close or get_close_matches(str(key), entries, n=5) or list(entries)
        raise ValueError(f"nothing in the catalogue is called {key!r}; it has {', '.join(names)}")
    return entries[key]


def _entries(path: str | Path | None) -> dict[str, Entry]:
    mine = read(path) if path is not None else {}
    return {**mine, **{key: entry for key, entry in {**own("devices"), **own("links")}.items() if key not in mine}}


def _fraction(entry: Entry, name: str, peak: float | None) -> float | None:
    measured = entry.get(name)
    return None if measured is None or peak is None else measured / peak


@cache
def usual_idle() -> float:
    """The median share of its power that a device draws without load, over those of the catalogue that say it.

    >>> round(usual_idle(), 2)
    0.14
    """
    from statistics import median

    every = own("devices").values()
    return median(entry["idle_power"] / entry["power"] for entry in every if "idle_power" in entry.numbers)


@cache
def usual_fraction() -> float:
    """The median of the shares of their peaks that devices of the catalogue reach, where it was measured.

    >>> 0.5 < usual_fraction() < 1
    True
    """
    from statistics import median

    every = [entry for entry in own("devices").values() if "matmul" in entry.numbers]
    return median(entry["matmul"] / (entry.get("bf16") or entry["fp16"]) for entry in every)
