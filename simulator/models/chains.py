"""Models of which only totals are published, as chains of even blocks: image and video networks, and others."""

from __future__ import annotations

from dataclasses import dataclass

from .. import checks
from ..clusters.device import dtype_name
from ..model import Block, Model
from ..operations import MatMul, Operations, Stream, gradients, held_width
from ..values import bounds
from .transformer import ADAM

MOVES = 6
"""How often an output of a convolution is read or written: by itself, a normalisation, an activation, the next one."""
SAVED = 2
"""How many copies of it are kept for the backward pass: those that the normalisation and the next convolution read.

What is published counts the outputs of convolutions alone; with these copies it is within a factor of two of what
training holds.
"""
CONVOLUTION = 256, 1152
"""Outputs per place, and numbers that each sums up: a typical convolution, 3×3 over 128 channels to 256."""


@dataclass(frozen=True)
class Chain:
    """``blocks`` alike blocks. Parameters and FLOP per sample are those of the whole; evenness is an assumption.

    - ``shape``: (n, k) of the matrix products; their m follows from the FLOP.
    - ``activations``: numbers that the convolutions of a sample give; None where they are not known: then it keeps only
      what enters its blocks, memory is that of its states, and times are those of its products.
    - ``saved``: how many copies of each are kept; ``moves``: how often a pass reads or writes it.
    - ``entering``: bytes of a sample; ``passing``: numbers that pass from block to block, per sample.
    - ``tokens`` of a sample, where it has some.
    - ``table``: parameters of which a sample only looks up ``entries`` numbers, in a first block of their own.
    """

    name: str
    blocks: int
    parameters: int
    forward: float
    shape: tuple[float, float] = CONVOLUTION
    activations: float | None = None
    entering: float = 0.0
    passing: float = 0.0
    table: int = 0
    entries: int = 0
    saved: float = SAVED
    moves: float = MOVES
    dtype: str = "bf16"
    batch: int = 1
    recompute: str = "none"
    tokens: int | None = None

    def __post_init__(self) -> None:
        checks.owned(self)
        object.__setattr__(self, "dtype", dtype_name(self.dtype))
        checks.whole("blocks", self.blocks, least=1)
        if self.recompute not in ("none", "full"):
            raise ValueError(
                f"selective recomputation is of attention; {self.name} is known by its totals alone: recompute is"
                f" 'none' or 'full'; got {self.recompute!r}"
            )

    def model(self) -> Model:
        """The Model."""
        tables = (self._tables(),) if self.table else ()
        return Model(
            name=self.name,
            blocks=(*tables, *(self._block(at) for at in range(self.blocks))),
            batch=self.batch,
            parameter_bytes=held_width(self.dtype),
            update=Operations((Stream(ADAM, kernels=0),), self.dtype),
            recipe=self,
            tokens=self.tokens,
        )

    def _block(self, at: int) -> Block:
        (n, k), width = self.shape, held_width(self.dtype)
        product = MatMul(self.forward / self.blocks / (2 * n * k), n, k)
        act = (self.activations or 0.0) / self.blocks * width
        moved = (Stream(self.moves * act, kernels=3),) if act else ()
        first, last = bounds(self.parameters, at, self.blocks)
        entering = self.passing * width if at or self.table else self.entering
        full = self.recompute == "full"
        return Block(
            parameters=last - first,
            forward=self._work(product, *moved),
            backward=self._work(*moved, *gradients([product])),
            input_bytes=entering,
            weight=self._work(product.gradients()[1]),
            saved_bytes=entering if full or not act else max(entering, self.saved * act),
            recomputes=full,
        )

    def _tables(self) -> Block:
        looked_up = self._work(Stream(2 * self.entries * held_width(self.dtype)))
        return Block(self.table, looked_up, looked_up, self.entering, weight=looked_up, saved_bytes=self.entering)

    def _work(self, *ops: MatMul | Stream) -> Operations:
        return Operations(ops, self.dtype)
