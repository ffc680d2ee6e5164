"""Llama as torchtitan trains it: what its selective recomputation repeats, and kernels that nobody fused.

``pytorch/torchtitan``, release of December 2024. Selective recomputation keeps what attention gives and every second
product of matrices: of the seven of a layer it repeats the keys, the sum of the heads, and one half of the gate, and
all that only moves memory. Without ``torch.compile`` norms, rotations and gates are kernels of one operation each, with
numbers of 4 bytes in between: they move ``EAGER`` times what one fused kernel moves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulator.model import Block, Model, Part
from simulator.models import Transformer
from simulator.models.transformer import block
from simulator.operations import MatMul, Operations, Stream
from simulator.work import Work

NORMS, READ, MIX, WRITE, THINK = (0, 5), 1, 2, 3, 6
"""The places of a layer's parts: norms; queries, keys and values; attention; the sum of the heads; the perceptron."""
EAGER = {**dict.fromkeys(NORMS, 34 / 4), READ: 20 / 4, THINK: 10 / 6}
"""By how much the bytes of a part grow that nobody fused.

- A norm: to 4 bytes (6), its square (8), the mean (4), times the root (8), to 2 bytes (6), times the weights (2);
  fused, it is read once and written once.
- A rotation: to 4 bytes (6), a complex product (8), to 2 bytes (6).
- A gate: the function of one half (4), times the other (6); fused, two are read and one is written.
"""


@dataclass(frozen=True)
class Llama:
    """A transformer of some ``shape``, ``compiled`` or not; ``repeats``: by torchtitan's selective recomputation."""

    shape: Transformer
    compiled: bool
    repeats: bool

    @property
    def layers(self) -> int:
        """Of the transformer."""
        return self.shape.layers

    def model(self) -> Model:
        """The model of the shape, with other layers.

        >>> small = Transformer(2, 512, 8, 256, 1024, gated=True, norm="rms", positions="rotary", bias=False)
        >>> Llama(small, True, True).model().hardware_flops > small.model().hardware_flops
        True
        """
        whole = self.shape.model()
        known = {id(one): self._layer(one) for one in dict.fromkeys(whole.blocks) if not one.aside}
        return replace(whole, blocks=tuple(known.get(id(one), one) for one in whole.blocks))

    def _layer(self, layer: Block) -> Block:
        parts = layer.parts
        if not self.compiled:
            parts = tuple(_unfused(part, EAGER.get(at, 1.0)) for at, part in enumerate(parts))
        if self.repeats:
            parts = tuple(replace(part, backward=self._again(at, part)) for at, part in enumerate(parts))
        return block(parts, layer.input_bytes, self.shape.dtype, self.shape.recompute)

    def _again(self, at: int, part: Part) -> Work:
        """The backward pass of a part, after what it repeats of its forward pass."""
        if at == MIX or not isinstance(part.forward, Operations) or not isinstance(part.backward, Operations):
            return part.backward
        keys = self.shape.kv_width
        share = {READ: keys / (self.shape.hidden + 2 * keys), WRITE: 1.0, THINK: 0.5}.get(at, 0.0)
        products = [op.grown("n", share) for op in part.forward.ops if share and isinstance(op, MatMul)]
        moved = [op for op in part.forward.ops if isinstance(op, Stream)]
        return Operations((*products[:1], *moved), part.forward.dtype) + part.backward


def _unfused(part: Part, factor: float) -> Part:
    """A part whose first Stream, forward and backward, moves so many times its bytes."""
    return replace(part, forward=_grown(part.forward, factor), backward=_grown(part.backward, factor))


def _grown(work: Work, factor: float) -> Work:
    if factor == 1 or not isinstance(work, Operations):
        return work
    ops = list(work.ops)
    for at, op in enumerate(ops):
        if isinstance(op, Stream):
            ops[at] = replace(op, bytes=op.bytes * factor)
            break
    return Operations(tuple(ops), work.dtype)
