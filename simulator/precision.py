"""Numbers in fewer bits: the types of mixed precision, and how many bytes each kind of number takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from . import checks
from .model import Block, Model, Part
from .rules import Rule, Scaled
from .rules.scaled import FixedScale, LossScale, scaled
from .work import in_dtype

if TYPE_CHECKING:
    import torch

TYPES = {"bf16": "bfloat16", "fp16": "float16"}
"""The reduced types by their short names; torch's names for them."""
WIDTH = 2
"""Bytes of a number in any of them."""


@dataclass(frozen=True)
class Precision:
    """Bytes per number: of a parameter, of its gradient, of its master copy (0: there is none), of a rule's memory.

    Mixed precision with Adam takes 2 + 2 + 4 + 2·4 = 16 bytes per parameter (Rajbhandari et al. 2020,
    arXiv:1910.02054).

    >>> Precision.mixed(), Precision.mixed(accumulate=True).gradients
    (Precision(parameters=2, gradients=2, master=4, state=4), 4)
    """

    parameters: int = 4
    gradients: int = 4
    master: int = 0
    state: int = 4

    def __post_init__(self) -> None:
        for name, width in vars(self).items():
            checks.number(name, width, least=0, of="Precision, in bytes")

    @classmethod
    def plain(cls, width: int) -> Precision:
        """All numbers in one type of so many bytes."""
        return cls(width, width, 0, width)

    @classmethod
    def mixed(cls, master: int = 4, accumulate: bool = False) -> Precision:
        """Parameters in 2 bytes, with a master copy; ``accumulate``: gradients are added up in the master's type."""
        return cls(WIDTH, master if accumulate else WIDTH, master, master)


@dataclass(frozen=True)
class Reduced:
    """In which type blocks compute, whether gradients are added up in the master's, and by what the loss is scaled."""

    dtype: str = "bf16"
    accumulate: bool = False
    scale: LossScale | FixedScale | None = None

    @property
    def torch_dtype(self) -> torch.dtype:
        """``dtype`` as torch knows it."""
        import torch

        found: torch.dtype = getattr(torch, TYPES[self.dtype])
        return found

    def precision(self, model: Model) -> Precision:
        """The bytes of each kind of number, for a model in full width."""
        return Precision.mixed(master_width(model), self.accumulate)

    def rule(self, rule: Rule | None) -> Rule | None:
        """The rule with the scale around it. Raises ValueError when it has another one already."""
        if rule is None or self.scale is None or rule == Scaled(_inside(rule), self.scale):
            return rule
        if scaled(rule):
            raise ValueError(
                f"a loss has one scale; got scale={self.scale} and rule={rule}: leave out the one or the other"
            )
        return Scaled(rule, self.scale)


def master_width(model: Model) -> int:
    """The bytes of a number of the master copy: those of the model, where it is not given in fewer already."""
    return max(4, model.parameter_bytes)


def _inside(rule: Rule) -> Rule:
    return rule.rule if isinstance(rule, Scaled) else rule


def reduced(model: Model, dtype: str) -> Model:
    """A model whose parameters, and what passes between its blocks, take 2 bytes a number; its data stay as they are.

    Its operations are those of ``dtype``; where only times are known, they stay. Raises ValueError for a mixture of
    experts: what its gate sends along counts tokens, beyond what 2 bytes can count.

    >>> reduced(Model.of_times(blocks=2, activation_bytes=8), "bf16").blocks[1].input_bytes
    4.0
    """
    if dtype not in model.narrow:
        model.narrow[dtype] = _reduced(model, dtype)
    return model.narrow[dtype]


def _reduced(model: Model, dtype: str) -> Model:
    from .models.knobs import blocks_in

    for number, block in enumerate(model.blocks):
        _refuse_routing(number, block)
    blocks = blocks_in(model, dtype) or in_width(model, dtype, WIDTH / model.parameter_bytes)
    return replace(model, blocks=blocks, parameter_bytes=WIDTH)


def _refuse_routing(number: int, block: Block) -> None:
    if any(part.routes for part in block.parts):
        raise ValueError(
            f"in 2 bytes one cannot count the tokens that go to experts; block {number} sends some to experts: learn"
            " a mixture of experts without MixedPrecision"
        )


def in_width(model: Model, dtype: str, share: float) -> tuple[Block, ...]:
    """The blocks of a model of which nobody knows which bytes are numbers: all shrink alike, to a ``share``."""
    known = dict[object, Block]()
    for number, block in enumerate(model.blocks):  # most are one object: narrowed once, they still are
        place = id(block), number == 0
        known[place] = known.get(place) or _block(block, dtype, share, first=number == 0)
    return tuple(known[id(block), number == 0] for number, block in enumerate(model.blocks))


def _block(block: Block, dtype: str, share: float, first: bool) -> Block:
    return replace(
        block,
        forward=in_dtype(block.forward, dtype),
        backward=in_dtype(block.backward, dtype),
        weight=None if block.weight is None else in_dtype(block.weight, dtype),
        input_bytes=block.input_bytes if first else block.input_bytes * share,
        saved_bytes=None if block.saved_bytes is None else block.saved_bytes * share,
        parts=tuple(_part(part, dtype, share) for part in block.parts),
    )


def _part(part: Part, dtype: str, share: float) -> Part:
    return replace(
        part,
        forward=in_dtype(part.forward, dtype),
        backward=in_dtype(part.backward, dtype),
        output_bytes=part.output_bytes * share,
        saved_bytes=None if part.saved_bytes is None else part.saved_bytes * share,
        saved_units=part.saved_units * share,
        again_bytes=part.again_bytes * share,
    )
