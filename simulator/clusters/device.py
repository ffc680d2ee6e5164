"""What computes: its speed, its memory, what it costs and what it draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .. import checks

DTYPES = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "half": "fp16", "bfloat16": "bf16", "float8": "fp8"}


@dataclass(frozen=True)
class Device:
    """What computes. Only a name and a speed are needed; the rest is None where nobody knows it.

    - ``flops``: achieved speed [FLOP/s] of work that is given as a number of operations alone.
    - ``peaks``: speed that the maker promises [FLOP/s], by dtype: "fp32", "fp16", "bf16", "fp8".
    - ``memory`` [B], ``bandwidth`` [B/s]: of its own memory.
    - ``efficiency``: share of the half-precision peak that large matrix products reach, measured.
    - ``overhead`` [s]: what starting a kernel takes. ``dispatch`` [s]: what the program that drives the device takes to
      issue one operation, while the device works on others: many small operations take as long as issuing them.
    - ``price`` [USD per hour] on the day ``priced``; ``power`` and ``idle`` [W] under load and without.

    >>> chip = Device("a chip", flops=70e12, peaks={"bf16": 100e12}, memory=16e9)
    >>> chip.peak("bfloat16"), Device(flops=1e9).peak("bf16")
    (100000000000000.0, 1000000000.0)
    """

    name: str = "a modest processor core"
    flops: float = 50e9
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

    def __post_init__(self) -> None:
        checks.number("flops", self.flops, above=0, of="in FLOP per second")
        pairs = self.peaks.items() if isinstance(self.peaks, Mapping) else self.peaks
        object.__setattr__(self, "peaks", tuple(sorted((dtype_name(name), speed) for name, speed in pairs)))
        for name, speed in dict(self.peaks).items():
            checks.number(f"peaks[{name!r}]", speed, above=0, of="in FLOP per second")
        for name in ("memory", "bandwidth", "efficiency", "price", "power", "idle"):
            if (value := getattr(self, name)) is not None:
                checks.number(name, value, least=0, of=self.name)
        checks.number("overhead", self.overhead, least=0, of="in seconds per kernel")
        checks.number("dispatch", self.dispatch, least=0, of="in seconds per operation")

    def peak(self, dtype: str) -> float:
        """The highest speed in a dtype [FLOP/s]; ``flops`` where no peaks are known.

        Raises ValueError where other peaks are known, but not this one.
        """
        known = dict(self.peaks)
        if not known:
            return self.flops
        name = dtype_name(dtype)
        if name not in known:
            raise ValueError(f"{self.name} has peaks for {', '.join(known)}, none for {dtype!r}: use one of those")
        return known[name]


def dtype_name(dtype: object) -> str:
    """The short name of a dtype: "bf16" for "bfloat16", for ``torch.bfloat16``, and for "bf16".

    >>> dtype_name("bfloat16")
    'bf16'
    """
    text = str(dtype).removeprefix("torch.")
    name = DTYPES.get(text, text)
    if name not in DTYPES.values():
        names = ", ".join(dict.fromkeys(DTYPES.values()))
        raise ValueError(f"a dtype is one of {names}, or its name in torch; got {dtype!r}")
    return name
