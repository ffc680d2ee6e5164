"""Quantities with their units in the key: "memory_GB" is 1e9 bytes for every 1 that stands there."""

from __future__ import annotations

TIME = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
SIZE = {"B": 1.0, "MB": 1e6, "GB": 1e9, "TB": 1e12, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40}
RATE = {f"{unit}_per_s": factor for unit, factor in SIZE.items()} | {"Mbit_per_s": 125e3, "Gbit_per_s": 125e6}
SPEED = {"FLOP_per_s": 1.0, "GFLOP_per_s": 1e9, "TFLOP_per_s": 1e12, "PFLOP_per_s": 1e15}
POWER = {"W": 1.0, "kW": 1e3}
MONEY = {"USD_per_h": 1.0}
INTENSITY = {"g_per_kWh": 1.0, "kg_per_kWh": 1e3}
SHARE = {"fraction": 1.0}

QUANTITIES = {
    **dict.fromkeys(("fp64", "fp32", "fp16", "bf16", "fp8", "matmul", "matmul_fp8"), SPEED),
    "memory": SIZE,
    "memory_bandwidth": RATE,
    "kernel_overhead": TIME,
    "dispatch": TIME,
    "power": POWER,
    "idle_power": POWER,
    "price": MONEY,
    "link_bandwidth": RATE,
    "link_achieved": RATE,
    "link_latency": TIME,
    "base_latency": TIME,
    "inside_latency": TIME,
    "between_latency": TIME,
    "bandwidth": SHARE,
    "carbon": INTENSITY,
}
"""What can be said in numbers, and in which units. Link bandwidths are those of one direction."""

TEXTS = (
    "kind", "name", "link", "algorithm", "protocol", "corrections", "price_date", "price_source", "source", "date",
    "unconfirmed",
)  # fmt: skip


def quantity(key: str, where: str) -> tuple[str, float]:
    """What a key speaks of, and how much one of its units is in SI units; for a text, 0.

    >>> quantity("memory_GB", "mine")
    ('memory', 1000000000.0)

    Raises ValueError for an unknown key, and for one without a unit.
    """
    if key in TEXTS:
        return key, 0.0
    for name in sorted(QUANTITIES, key=len, reverse=True):
        units = QUANTITIES[name]
        for unit, factor in units.items():
            if key == f"{name}_{unit}":
                return name, factor
        if key == name:
            raise ValueError(f"{where}: {key!r} has no unit; write {' or '.join(f'{key}_{unit}' for unit in units)}")
    from difflib import get_close_matches

    known = [f"{name}_{unit}" for name, units in QUANTITIES.items() for unit in units] + list(TEXTS)
    close = get_close_matches(key, known, n=3) or [f"{name}_{next(iter(units))}" for name, units in QUANTITIES.items()]
    raise ValueError(f"{where}: the key {key!r} is unknown; close to it are {', '.join(close)}")


def canonical(name: str) -> str:
    """The key of a quantity in SI units: "memory_B". A text is its own key."""
    return name if name in TEXTS else f"{name}_{next(iter(QUANTITIES[name]))}"
