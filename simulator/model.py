"""What is trained, as the virtual clock sees it: blocks with parameters, work and sizes, but no tensors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from . import checks
from .values import Tied, bounds
from .work import FREE, Scaled, Seconds, Work

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Part:
    """A part of a block that ranks run together; see ``ForwardPart``.

    - ``forward``, ``backward``: how long it takes where it is not split.
    - ``output_bytes``: the size of what leaves it, per sample.
    - ``parameters``: those that every rank holds; ``units``: (how many, parameters of each) that are split over ranks.
    - ``shares``: ranks split its units, and each needs all of its input. ``sums``: they split its units, and their
      outputs add up. ``adds``: it adds what entered the part of that number in the block.
    - ``mixes``: every token of it reads other tokens, as attention does; with ``causal`` only those before it.
    - ``routes``: it sends tokens to experts; ``experts``: it is these experts, its units. ``routing``: with ``routes``,
      how much more of the tokens the busiest rank sends or gets than the mean one; without it an AllToAll cannot be
      timed without tensors.
    - ``saved_bytes``: what it keeps for its backward pass, per sample (None: what enters it); ``saved_units`` too,
      which ranks split that split its units.
    """

    forward: Work = FREE
    backward: Work = FREE
    output_bytes: float = 0.0
    parameters: int = 0
    units: tuple[tuple[int, int], ...] = ()
    shares: bool = False
    sums: bool = False
    adds: int | None = None
    mixes: bool = False
    causal: bool = False
    routes: bool = False
    experts: bool = False
    routing: float | None = None
    saved_bytes: float | None = None
    saved_units: float = 0.0

    @property
    def split(self) -> bool:
        """Whether tensor parallelism splits it."""
        return (bool(self.units) and not self.experts) or self.mixes

    def held(self, index: int, of: int) -> int:
        """How many parameters part ``index`` of ``of`` holds."""
        return self.parameters + sum(_size(count, index, of) * each for count, each in self.units)


@dataclass(frozen=True)
class Block:
    """One piece of a model, the unit of Forward and Backward.

    ``parameters`` is a count; ``forward`` and ``backward`` say how long it takes; ``input_bytes`` is the size of
    what enters it, per sample. ``weight`` is the part of ``backward`` that BackwardWeight does (None: half of it).
    ``parts`` say how ranks may run it together; without them no tensor, context or expert parallelism can split it.
    ``shapes`` are those of its parameters, for compressors of matrices; () where they are not known.
    ``ties`` are the parameters of earlier blocks that it uses too, such as those of an embedding; they do not count
    among its own. ``buffers`` counts the numbers that it keeps without learning them. ``saved_bytes`` is the size, per
    sample, of all that a forward pass keeps for its backward pass, its input included; None: of its input alone.
    With ``recomputes`` it keeps its input alone until then, and its backward pass begins with its forward pass again.
    """

    parameters: int = 0
    forward: Work = FREE
    backward: Work = FREE
    input_bytes: float = 0.0
    weight: Work | None = None
    parts: tuple[Part, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()
    ties: tuple[Tied, ...] = ()
    buffers: int = 0
    saved_bytes: float | None = None
    recomputes: bool = False

    def __post_init__(self) -> None:
        checks.whole("parameters", self.parameters)
        checks.whole("buffers", self.buffers)
        if self.saved_bytes is not None:
            checks.number("saved_bytes", self.saved_bytes, least=0)
        checks.number("input_bytes", self.input_bytes, least=0)

    @property
    def later(self) -> Work:
        """The work of its BackwardWeight; its BackwardInput does the rest of ``backward``."""
        return Scaled(self.backward, 0.5) if self.weight is None else self.weight


@dataclass(frozen=True)
class Model:
    """A chain of blocks, with sizes in bytes and work in seconds or FLOPs; no tensors, so of any size.

    ``batch`` is the number of samples in a global batch, ``parameter_bytes`` the width of a parameter and of its
    gradient. ``load`` is the work of fetching a rank's share of a step, which its first microbatch pays, and ``loss``
    that of the loss. ``update`` is the work of an update and ``reduce`` that of a Reduce, Copy or Free; their
    "samples" are the numbers that are touched. ``recipe`` is what it was made from; see ``with_knobs``.
    """

    name: str
    blocks: tuple[Block, ...]
    batch: int = 1
    parameter_bytes: int = 4
    load: Work = FREE
    loss: Work = FREE
    update: Work = FREE
    reduce: Work = FREE
    recipe: object = field(default=None, repr=False, compare=False)

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
        weight: float | None = None,
    ) -> Model:
        """A model given by its times: ``forward`` and ``backward`` are seconds per block and microbatch.

        ``parameters`` counts over all blocks; ``activation_bytes`` is what passes between blocks, per sample;
        ``weight`` is the part of ``backward`` that a BackwardWeight takes [s], half of it unless told.

        >>> Model.of_times(blocks=3, parameters=3000).parameters
        3000
        """
        checks.whole("blocks", blocks, least=1)
        checks.number("forward", forward, least=0, of="in seconds")
        checks.number("backward", backward, least=0, of="in seconds")
        checks.whole("parameters", parameters)
        if weight is not None and not 0 <= checks.number("weight", weight, of="in seconds") <= backward:
            raise ValueError(f"the weight's part of a backward pass is 0 to backward={backward:g} s; got {weight:g}")
        return cls(
            name=f"{blocks} blocks of {forward:g} s forward and {backward:g} s backward",
            blocks=tuple(
                Block(
                    (i + 1) * parameters // blocks - i * parameters // blocks,
                    Seconds(forward),
                    Seconds(backward),
                    activation_bytes,
                    None if weight is None else Seconds(weight),
                )
                for i in range(blocks)
            ),
            batch=batch,
            parameter_bytes=parameter_bytes,
        )

    def in_parts(self, units: int, experts: int = 0) -> Model:
        """The same model, of which ranks can share every block, as they share a transformer's.

        A block has three parts of one length: two of ``units`` units, and between them one in which tokens read each
        other. With ``experts`` there are two more: one that routes tokens, evenly, and the experts themselves.

        >>> len(Model.of_times(blocks=1).in_parts(units=8).blocks[0].parts)
        3
        """
        checks.whole("units", units, least=1)
        checks.whole("experts", experts)
        return replace(self, blocks=tuple(_in_parts(block, units, experts) for block in self.blocks))

    @property
    def parameters(self) -> int:
        """Number of parameters over all blocks."""
        return sum(block.parameters for block in self.blocks)

    @property
    def model_flops(self) -> float:
        """FLOP of one sample's forward and backward passes, the latter twice the former; what is recomputed apart.

        0 where only times are known. It is what MFU counts.
        """
        return 3 * sum(block.forward.flops for block in self.blocks)

    @property
    def hardware_flops(self) -> float:
        """FLOP that are done for one sample, with what is recomputed: what HFU counts."""
        return sum(
            block.backward.flops + block.forward.flops * (2 if block.recomputes else 1) for block in self.blocks
        )

    @classmethod
    def from_torch(cls, module: torch.nn.Module, sample: torch.Tensor, name: str | None = None) -> Model:
        """A torch module as operations: nothing is computed, and no memory taken, so it may be of any size.

        The children of a Sequential are the blocks; any other module is one. ``sample`` is what enters it, samples
        along the first dimension; its batch is that of the model. Matrix products and convolutions are counted as they
        are, everything else by the bytes it reads and writes. Raises ValueError where a block cannot take its input.

        Example: ``Model.from_torch(torch.nn.Sequential(torch.nn.Linear(8, 4)), torch.zeros(16, 8))``
        """
        from .models.from_torch import model_of

        return model_of(module, sample, name)

    @cached_property
    def cuts(self) -> dict[object, Model]:
        """What ranks see of it that share it, by ``Cut``; kept here since hashing a model takes long."""
        return {}

    def with_batch(self, batch: int) -> Model:
        """The same model with another global batch [samples]."""
        return replace(self, batch=batch)


def saved(parts: tuple[Part, ...]) -> float | None:
    """What all parts keep for their backward passes, per sample; None where one does not say."""
    if any(part.saved_bytes is None for part in parts):
        return None
    return sum((part.saved_bytes or 0.0) + part.saved_units for part in parts)


def _in_parts(block: Block, units: int, experts: int) -> Block:
    """See ``Model.in_parts``: read, mix, perhaps route and think, write."""
    routed = [Part(routes=True, routing=1.0), Part(experts=True)] if experts else []
    kinds = [Part(shares=True), Part(mixes=True, causal=True), *routed, Part(sums=True)]
    holders = 3 if experts else 2
    parts = []
    for part in kinds:
        count = experts if part.experts else units if part.shares or part.sums else 0
        each = block.parameters // (holders * count) if count else 0
        parts.append(
            replace(
                part,
                forward=Scaled(block.forward, 1 / len(kinds)),
                backward=Scaled(block.backward, 1 / len(kinds)),
                output_bytes=block.input_bytes,
                units=((count, each),) if count else (),
            )
        )
    rest = block.parameters - sum(part.held(0, 1) for part in parts)
    parts[1] = replace(parts[1], parameters=rest)
    return replace(block, parts=tuple(parts))


def _size(count: int, index: int, of: int) -> int:
    start, end = bounds(count, index, of)
    return end - start
