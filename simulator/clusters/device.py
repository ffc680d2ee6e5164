"""What computes: its speed, its memory, what it costs and what it draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .. import checks

DTYPES = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "half": "fp16", "bfloat16": "bf16", "float8": "fp8"}
HALF = ("bf16", "fp16", "fp32", "fp64")
PEAKS = 'a dict from dtypes to FLOP/s, such as {"bf16": 312e12}'
MODEST = 50e9
"""What a processor core reaches [FLOP/s], where nobody says what computes."""


@dataclass(frozen=True)
class Device:
    """What computes. Only a name and a speed are needed; the rest is None where nobody knows it.

    - ``flops``: achieved speed [FLOP/s] of work that is given as a number of operations alone. Where nobody says it, it
      follows from the peaks: ``efficiency`` of the half-precision one, or the share that devices usually reach.
    - ``peaks``: speed that the maker promises [FLOP/s], by dtype: "fp32", "fp16", "bf16", "fp8".
    - ``memory`` [B], ``bandwidth`` [B/s]: of its own memory.
    - ``efficiency``: share of the half-precision peak that large matrix products reach, measured; ``efficiency_fp8``:
      that of the one in fp8, where it is another.
    - ``overhead`` [s]: what starting a kernel takes. ``dispatch`` [s]: what the program that drives the device takes to
      issue one operation, while the device works on others: many small operations take as long as issuing them.
    - ``price`` [USD per hour] on the day ``priced``; ``power`` and ``idle`` [W] under load and without.

    >>> chip = Device("a chip", flops=70e12, peaks={"bf16": 100e12}, memory=16e9)
    >>> chip.peak("bfloat16"), Device(flops=1e9).peak("bf16"), Device(peaks={"bf16": 2e9}, efficiency=0.5).flops
    (100000000000000.0, 1000000000.0, 1000000000.0)

    Raises ValueError for an efficiency above 1, and for a device that draws more power without load than under it.
    """

    name: str = "a modest processor core"
    flops: float = None  # type: ignore[assignment]  # a number once it is made
    peaks: Mapping[str, float] | tuple[tuple[str, float], ...] = ()
    memory: float | None = None
    bandwidth: float | None = None
    efficiency: float | None = None
    overhead: float = 0.0
    price: float | None = None
    priced: str | None = None
    power: float | None = None
    idle: float | None = None
    dispatch: float = 0.0
    efficiency_fp8: float | None = None

    def __post_init__(self) -> None:
        checks.owned(self)
        checks.kind("name", self.name, str, "a text, what the device is called in tables")
        pairs = self.peaks.items() if isinstance(self.peaks, Mapping) else checks.several("peaks", self.peaks, PEAKS)
        if any(len(checks.several("peaks", pair, PEAKS)) != 2 for pair in pairs):
            raise ValueError(f"peaks are {PEAKS}; got peaks={self.peaks!r}")
        peaks = sorted((dtype_name(name), _speed(name, speed)) for name, speed in pairs)
        object.__setattr__(self, "peaks", tuple(peaks))
        for name in ("memory", "bandwidth", "efficiency", "efficiency_fp8", "price", "power", "idle"):
            if (value := getattr(self, name)) is not None:
                least = dict(least=0) if name in ("price", "power", "idle") else dict(above=0)
                checks.number(name, value, of=self.name, **least)
        for name, kind in (("efficiency", "half-precision"), ("efficiency_fp8", "fp8")):
            if (share := getattr(self, name)) is not None and share > 1:
                raise ValueError(
                    f"{self.name}: {name} is a share of the {kind} peak, at most 1: what products were measured to"
                    f" reach is no more than that peak; got {name}={share:g}"
                )
        if self.idle is not None and self.power is not None and self.idle > self.power:
            raise ValueError(
                f"{self.name}: without load a device draws at most what it draws under it;"
                f" got idle={self.idle:g} and power={self.power:g}, in W"
            )
        if vars(self)["flops"] is None:
            object.__setattr__(self, "flops", self._achieved())
        checks.number("flops", self.flops, above=0, of="in FLOP per second")
        checks.number("overhead", self.overhead, least=0, of="in seconds per kernel")
        checks.number("dispatch", self.dispatch, least=0, of="in seconds per operation")

    def _achieved(self) -> float:
        """What it reaches of the peak that ``efficiency`` is a share of; without peaks, a modest processor core."""
        if not self.peaks:
            return MODEST
        from ..catalog import usual_fraction

        return half(dict(self.peaks)) * (usual_fraction() if self.efficiency is None else self.efficiency)

    def reached(self, dtype: str) -> float | None:
        """The share of the peak in a dtype that large matrix products reach; None where nobody measured it."""
        return self.efficiency if dtype != "fp8" or self.efficiency_fp8 is None else self.efficiency_fp8

    def peak(self, dtype: str) -> float:
        """The highest speed in a dtype [FLOP/s]; ``flops`` where no peaks are known.

        Raises ValueError where other peaks are known, but not this one.
        """
        known = dict(self.peaks)
        if not known:
            return self.flops
        name = dtype_name(dtype)
        if name not in known:
            usual = next((one for one in HALF if one in known), next(iter(known)))
            peaks = ", ".join(known)
            raise ValueError(f"{self.name} has peaks for {peaks}, none for {dtype!r}: give dtype={usual!r}")
        return known[name]


def half(peaks: Mapping[str, float]) -> float:
    """The peak that efficiencies are shares of: that of 2 bytes, or where it is not known, of 4 or 8; else the highest.

    >>> half({"fp32": 1.0, "fp16": 2.0})
    2.0
    """
    return next((peaks[name] for name in HALF if name in peaks), max(peaks.values()))


def _speed(name: str, speed: float) -> float:
    return checks.number(f"peaks[{name!r}]", speed, above=0, of="in FLOP per second")


def dtype_name(dtype: object) -> str:
    """The short name of a dtype: "bf16" for "bfloat16", for ``torch.bfloat16``, for "BF16", and for "bf16".

    >>> dtype_name("bfloat16")
    'bf16'
    """
    text = (dtype.__name__ if isinstance(dtype, type) else str(dtype)).removeprefix("torch.").lower()
    name = DTYPES.get(text, text)
    if name not in DTYPES.values():
        names = ", ".join(dict.fromkeys(DTYPES.values()))
        raise ValueError(f"a dtype is one of {names}, or its name in torch; got {dtype!r}")
    return name
