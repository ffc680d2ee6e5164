"""Work as operations: products of matrices, and what only reads and writes memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from . import checks
from .clusters.device import Device, dtype_name
from .roofline import OPERANDS, STREAMS, moving, speed

WIDTHS = {"fp64": 8, "fp32": 4, "fp16": 2, "bf16": 2, "fp8": 1}
"""Bytes of a number by dtype."""
HELD = 2
"""Bytes of a parameter, at least: learning in fp8 casts what products read, and keeps parameters in bf16."""
DIMENSIONS = ("m", "n", "k", "count")
OPS = "MatMuls and Streams, one after another"


@dataclass(frozen=True)
class MatMul:
    """``count`` products of an m×k and a k×n matrix, for one sample: 2·m·n·k·count FLOP.

    - ``samples``: the dimension that grows with the number of samples: "m", "n", "k" or "count".
    - ``tokens``: the one that ranks split when they share tokens; ``units``: the one they split when they share units.
    - ``skipped``: the share that need not be done, such as the masked half of causal attention; it counts as FLOPs.
    - ``fused``: attention that is computed tile by tile: what is between its products never leaves the chip. A number
      is the share of the device's peak that it reaches.
    - ``dtype``: of its numbers, where they are not those of the work that it is part of, as attention's among products
      in fp8.

    >>> MatMul(2048, 4096, 1024).flops
    17179869184
    """

    m: float
    n: float
    k: float
    count: float = 1
    samples: str = "m"
    tokens: str = "m"
    units: str = "n"
    skipped: float = 0.0
    fused: bool | float = False
    dtype: str | None = None

    def __post_init__(self) -> None:
        checks.owned(self)
        if self.dtype is not None:
            object.__setattr__(self, "dtype", dtype_name(self.dtype))
        for name in DIMENSIONS:
            checks.number(name, getattr(self, name), least=0, of="MatMul")
        for name in ("samples", "tokens", "units"):
            if getattr(self, name) not in DIMENSIONS:
                choices = ", ".join(map(repr, DIMENSIONS))
                raise ValueError(f"{name} is a dimension of the product, {choices}; got {name}={getattr(self, name)!r}")
        if not 0 <= checks.number("skipped", self.skipped, of="MatMul") < 1:
            raise ValueError(f"skipped is the share of a product that need not be done, 0 to 1; got {self.skipped!r}")
        if not isinstance(self.fused, bool):
            checks.number("fused", self.fused, above=0, of="of the peak of a device")

    @property
    def flops(self) -> float:
        """FLOP per sample."""
        return 2 * self.m * self.n * self.k * self.count

    def grown(self, dimension: str, factor: float) -> MatMul:
        """The same with one dimension ``factor`` times as large."""
        return self if factor == 1 else replace(self, **{dimension: getattr(self, dimension) * factor})

    def gradients(self) -> tuple[MatMul, MatMul]:
        """The two products of its backward pass: the gradient of the left matrix, and that of the right one."""
        left = self._turned({"m": "m", "n": "k", "k": "n", "count": "count"})
        return left, self._turned({"m": "k", "n": "n", "k": "m", "count": "count"})

    def _turned(self, place: dict[str, str]) -> MatMul:
        """The product in which each dimension stands in another place."""
        sizes: dict[str, Any] = {place[name]: getattr(self, name) for name in DIMENSIONS}
        roles: dict[str, Any] = {name: place[getattr(self, name)] for name in ("samples", "tokens", "units")}
        return replace(self, **sizes, **roles)

    def shared(self, units: int, tokens: float, experts: int) -> MatMul:
        """What is left for a rank, where so many split its units and tokens, or its experts, but not their tokens."""
        mine = self.grown(self.units, 1 / units).grown(self.tokens, 1 / tokens)
        return mine.grown("count", 1 / experts).grown(self.samples, experts) if experts > 1 else mine

    def seconds(self, samples: float, device: Device, dtype: str) -> float:
        """The longer of computing and of moving the matrices, and the start of a kernel.

        What a product in fp8 gives has two bytes a number.
        """
        mine, dtype = self.grown(self.samples, samples), self.dtype or dtype
        outputs = mine.m * mine.n * mine.count
        done = mine.flops * (1 - self.skipped)
        computing = done / speed(device, dtype, outputs, mine.k, self.fused) if done else 0.0
        read = (mine.m + mine.n) * mine.k * mine.count * WIDTHS[dtype]
        moved = 0.0 if self.fused else read + outputs * held_width(dtype)
        return max(computing, moving(device, moved, OPERANDS)) + device.overhead


@dataclass(frozen=True)
class Stream:
    """Work that is bound by memory: ``bytes`` read and written per sample, by so many ``kernels``."""

    bytes: float
    kernels: int = 1

    def __post_init__(self) -> None:
        checks.owned(self)
        checks.number("bytes", self.bytes, least=0, of="Stream")
        checks.whole("kernels", self.kernels, of="Stream")

    @property
    def flops(self) -> float:
        """None that count."""
        return 0.0

    def shared(self, units: int, tokens: float, experts: int) -> Stream:
        """What is left for a rank; of experts' tokens it has as many as without sharing."""
        return self if units * tokens == 1 else replace(self, bytes=self.bytes / (units * tokens))

    def seconds(self, samples: float, device: Device, dtype: str) -> float:
        """The time to move the bytes, and to start the kernels."""
        return moving(device, self.bytes * samples, STREAMS) + self.kernels * device.overhead


@dataclass(frozen=True)
class Operations:
    """Work that follows from its operations, one after another, with numbers of ``dtype``.

        time = Σ max(FLOP / speed, bytes / bandwidth) + kernels · overhead

    On a device of which only ``flops`` is known it is FLOP / flops. See ``simulator.roofline`` for the speed.

    >>> Operations((MatMul(1000, 1000, 1000),)).of(3, Device(flops=1e12))
    0.006
    """

    ops: tuple[MatMul | Stream, ...] = ()
    dtype: str = "bf16"

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", dtype_name(self.dtype))
        ops = checks.several("ops", self.ops, OPS)
        for op in ops:
            checks.kind("ops", op, (MatMul, Stream), OPS)
        if type(self.ops) is not tuple:
            object.__setattr__(self, "ops", tuple(ops))

    @cached_property
    def flops(self) -> float:
        """FLOP per sample: those of the products."""
        return sum(op.flops for op in self.ops)

    def of(self, samples: float, device: Device) -> float:
        """Seconds for a microbatch of ``samples`` on ``device``."""
        known = self._known.get((samples, id(device)))
        if known is None or known[0] is not device:
            seconds = sum(op.seconds(samples, device, self.dtype) for op in self.ops)
            known = self._known[samples, id(device)] = device, seconds
        return known[1]

    @cached_property
    def issued(self) -> int:
        """How many operations a program has to issue."""
        return sum(op.kernels if isinstance(op, Stream) else 1 for op in self.ops)

    def shared(self, units: int = 1, tokens: float = 1, experts: int = 1) -> Operations:
        """What is left for one rank, where so many split the units, the tokens, the experts."""
        if units * tokens * experts == 1:
            return self
        return Operations(tuple(op.shared(units, tokens, experts) for op in self.ops), self.dtype)

    def in_dtype(self, dtype: str) -> Operations:
        """The same operations with numbers of another type: all that they read and write grows or shrinks alike.

        In fp8 only products read one byte a number; what is between them has two.
        """
        share = held_width(dtype) / held_width(self.dtype)
        ops = (replace(op, bytes=op.bytes * share) if isinstance(op, Stream) else op for op in self.ops)
        return Operations(tuple(ops), dtype)

    def __add__(self, other: Operations) -> Operations:
        """One after the other."""
        return Operations(self.ops + other.ops, self.dtype)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[object, ...]:
        return Operations, (self.ops, self.dtype)  # not what was remembered: hashes differ from process to process

    @cached_property
    def _hash(self) -> int:
        return hash((self.ops, self.dtype))

    @cached_property
    def _known(self) -> dict[tuple[float, int], tuple[Device, float]]:
        """What was asked before; the device is kept, so that its number stays its own."""
        return {}


def held_width(dtype: str) -> int:
    """Bytes of a parameter, and of its gradient, of a model whose products are of ``dtype``.

    Those of fp8 read copies in one byte; parameters and gradients stay in two, as in NVIDIA's Transformer Engine.

    >>> held_width("fp8"), held_width("fp32")
    (2, 4)
    """
    return max(HELD, WIDTHS[dtype])


def gradients(ops: Iterable[MatMul | Stream]) -> tuple[MatMul, ...]:
    """The products of the backward passes of some products."""
    return tuple(product for op in ops if isinstance(op, MatMul) for product in op.gradients())
