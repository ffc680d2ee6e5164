"""What is trained, as the virtual clock sees it: blocks with parameters, work and sizes, but no tensors."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace

from . import checks
from .cluster import Device


@dataclass(frozen=True)
class Seconds:
    """A time that does not depend on anything: ``Seconds(1.0)``."""

    seconds: float = 0.0

    def of(self, samples: float, device: Device) -> float:
        """Seconds for a microbatch of ``samples`` on ``device``."""
        return self.seconds


@dataclass(frozen=True)
class Flops:
    """A time that follows from work: ``per_sample`` [FLOP] at the device's speed [FLOP/s]."""

    per_sample: float

    def of(self, samples: float, device: Device) -> float:
        """Seconds for a microbatch of ``samples`` on ``device``."""
        return samples * self.per_sample / device.flops


@dataclass(frozen=True)
class Measured:
    """Times measured at several microbatch sizes; in between and beyond, straight lines.

    ``points`` are (samples, seconds), the samples increasing.
    """

    points: tuple[tuple[float, float], ...]

    def of(self, samples: float, device: Device) -> float:
        """Seconds for a microbatch of ``samples``; the device was the one measured."""
        if len(self.points) == 1:
            return self.points[0][1]
        right = min(max(bisect_left(self.points, (samples, 0.0)), 1), len(self.points) - 1)
        (x0, y0), (x1, y1) = self.points[right - 1], self.points[right]
        return max(0.0, y0 + (y1 - y0) * (samples - x0) / (x1 - x0))


Work = Seconds | Flops | Measured


@dataclass(frozen=True)
class Block:
    """One piece of a model, the unit of Forward and Backward.

    ``parameters`` is a count; ``forward`` and ``backward`` say how long it takes; ``input_bytes`` is the size of
    what enters it, per sample.
    """

    parameters: int = 0
    forward: Work = Seconds()
    backward: Work = Seconds()
    input_bytes: float = 0.0

    def __post_init__(self) -> None:
        checks.whole("parameters", self.parameters)
        checks.number("input_bytes", self.input_bytes, least=0)


@dataclass(frozen=True)
class Model:
    """A chain of blocks, with sizes in bytes and work in seconds or FLOPs; no tensors, so of any size.

    ``batch`` is the number of samples in a global batch, ``parameter_bytes`` the width of a parameter and of its
    gradient. ``load`` is the work of fetching a rank's share of a step, which its first microbatch pays, and ``loss``
    that of the loss. ``update`` is the work of an update and ``reduce`` that of a Reduce, Copy or Free; their
    "samples" are the numbers that are touched.
    """

    name: str
    blocks: tuple[Block, ...]
    batch: int = 1
    parameter_bytes: int = 4
    load: Work = Seconds()
    loss: Work = Seconds()
    update: Work = Seconds()
    reduce: Work = Seconds()

    def __post_init__(self) -> None:
        checks.whole("batch", self.batch, least=1, of="in samples")
        checks.whole("parameter_bytes", self.parameter_bytes, least=1)
        if not self.blocks:
            raise ValueError("a model has at least one block; got blocks=()")

    @classmethod
    def of_times(
        cls,
        blocks: int = 4,
        forward: float = 1.0,
        backward: float = 2.0,
        parameters: int = 0,
        activation_bytes: float = 0.0,
        parameter_bytes: int = 4,
        batch: int = 1,
    ) -> Model:
        """A model given by its times: ``forward`` and ``backward`` are seconds per block and microbatch.

        ``parameters`` counts over all blocks; ``activation_bytes`` is what passes between blocks, per sample.

        >>> Model.of_times(blocks=3, parameters=3000).parameters
        3000
        """
        checks.whole("blocks", blocks, least=1)
        checks.number("forward", forward, least=0, of="in seconds")
        checks.number("backward", backward, least=0, of="in seconds")
        checks.whole("parameters", parameters)
        return cls(
            name=f"{blocks} blocks of {forward:g} s forward and {backward:g} s backward",
            blocks=tuple(
                Block(
                    (i + 1) * parameters // blocks - i * parameters // blocks,
                    Seconds(forward),
                    Seconds(backward),
                    activation_bytes,
                )
                for i in range(blocks)
            ),
            batch=batch,
            parameter_bytes=parameter_bytes,
        )

    @property
    def parameters(self) -> int:
        """Number of parameters over all blocks."""
        return sum(block.parameters for block in self.blocks)

    def with_batch(self, batch: int) -> Model:
        """The same model with another global batch [samples]."""
        return replace(self, batch=batch)
