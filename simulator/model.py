"""What is trained, as the virtual clock sees it: blocks with parameters, work and sizes, but no tensors."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from . import checks
from .block import Block, Part, evenly_routed, in_parts, saved
from .operations import Operations
from .work import FREE, Seconds, Work, dtypes_of, require_work

if TYPE_CHECKING:
    import torch


__all__ = ["Block", "Model", "Part", "saved"]


@dataclass(frozen=True)
class Model:
    """A chain of blocks, with sizes in bytes and work in seconds or FLOPs; no tensors, so of any size.

    ``batch`` is the number of samples in a global batch, ``parameter_bytes`` the width of a parameter and of its
    gradient. ``load`` is the work of fetching a rank's share of a step, which its first microbatch pays, and ``loss``
    that of the loss. ``update`` is the work of an update and ``reduce`` that of a Reduce, Copy or Free; their
    "samples" are the numbers that are touched. ``recipe`` is what it was made from; see ``with_knobs``. ``tokens`` are
    those of a sample; None where samples, such as images, have none, or nobody said.
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
    tokens: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        checks.owned(self)
        checks.kind("name", self.name, str, "a text, what the model is called in tables")
        checks.whole("batch", self.batch, least=1, of="in samples")
        checks.whole("parameter_bytes", self.parameter_bytes, least=1)
        if self.tokens is not None:
            checks.whole("tokens", self.tokens, least=1, of="of a sample")
        blocks = checks.several("blocks", self.blocks, "the Blocks of a model, in their order")
        for block in blocks:
            checks.kind("blocks", block, Block, "the Blocks of a model, in their order")
        if not blocks:
            raise ValueError("a model has at least one block; got blocks=()")
        if type(self.blocks) is not tuple:
            object.__setattr__(self, "blocks", tuple(blocks))
        for name in ("load", "loss", "update", "reduce"):
            require_work(name, getattr(self, name), of="Model")

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

        A block takes its time whatever the device and however many samples: ``batch``, and shares of it, change the
        sizes of activations and the throughput, but no time. Where they should, give work in FLOP.

        >>> Model.of_times(blocks=3, parameters=3000).parameters
        3000
        """
        blocks = checks.whole("blocks", blocks, least=1)
        forward = checks.number("forward", forward, least=0, of="in seconds")
        backward = checks.number("backward", backward, least=0, of="in seconds")
        parameters = checks.whole("parameters", parameters)
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
        units, experts = checks.whole("units", units, least=1), checks.whole("experts", experts)
        return replace(self, blocks=tuple(in_parts(block, units, experts) for block in self.blocks))

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
    def from_torch(
        cls,
        module: torch.nn.Module,
        sample: torch.Tensor | tuple[torch.Tensor, ...] | dict[str, torch.Tensor],
        name: str | None = None,
        tokens: int | None = None,
    ) -> Model:
        """A torch module as operations: nothing is computed, and no memory taken, so it may be of any size.

        The children of a Sequential are the blocks; any other module is one: for more, make a Sequential of its layers,
        as in ``torch.nn.Sequential(*encoder.layers)``. ``sample`` is what enters it, samples along the first dimension
        (there must be one: shapes do not tell a sample from a batch); its batch is that of the model. Several inputs
        are a tuple, or a dict by name. ``tokens``: how many each has, where samples are texts; shapes do not tell.

        Matrix products and convolutions are counted as they are, everything else by the bytes it reads and writes.
        Frozen parameters (``requires_grad=False``) count as buffers: they have no gradients, and no optimizer.
        ``dtype`` of ``simulate`` and ``with_knobs`` is another width of all its numbers. Raises ValueError where a
        block cannot take its input, or looks at numbers.

        Example: ``Model.from_torch(torch.nn.Sequential(torch.nn.Linear(8, 4)), torch.zeros(16, 8))``
        """
        from .models.from_torch import model_of

        return model_of(module, sample, name, tokens)

    @cached_property
    def of_operations(self) -> bool:
        """Whether its blocks are operations, which are done for whole samples; times may be of fractions."""
        return any(isinstance(block.forward, Operations) for block in self.blocks)

    @cached_property
    def dtypes(self) -> frozenset[str]:
        """Those of its products of matrices; none where only times or FLOP are known."""
        works = {id(work): work for block in self.blocks for work in (block.forward, block.backward)}
        return frozenset(dtype for work in works.values() for dtype in dtypes_of(work))

    @cached_property
    def asides(self) -> tuple[bool, ...]:
        """Which blocks do not count where they are split evenly over stages."""
        return tuple(block.aside for block in self.blocks)

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and sent to other processes: its fields; what else is kept here can be made again."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @cached_property
    def views(self) -> dict[object, int]:
        """Numbers for what ranks see of it, the same for the same work; see ``observed.load``."""
        return {}

    @cached_property
    def cuts(self) -> dict[object, Model]:
        """What ranks see of it that share it, by ``Cut``; kept here since hashing a model takes long."""
        return {}

    @cached_property
    def narrow(self) -> dict[str, Model]:
        """The same with numbers of 2 bytes, by dtype; see ``precision.reduced``."""
        return {}

    @cached_property
    def evenly_routed(self) -> Model:
        """The same model, of which every expert gets as many tokens: enough to check programs. Made once."""
        blocks = tuple(map(evenly_routed, self.blocks))
        return self if blocks == self.blocks else replace(self, blocks=blocks)

    def __repr__(self) -> str:
        many = f"{len(self.blocks)} block{'s' if len(self.blocks) > 1 else ''}"
        return f"<Model {self.name!r}: {many}, {self.parameters:,} parameters, batch={self.batch}>"

    def with_batch(self, batch: int) -> Model:
        """The same model with another global batch [samples]."""
        return replace(self, batch=batch)
