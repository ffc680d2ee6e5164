"""Numbers in fewer bits: the types of mixed precision, and how many bytes each kind of number takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .model import Block, Model, Part
from .rules import Rule, Scaled
from .rules.scaled import FixedScale, LossScale, scaled

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


def reduced(model: Model) -> Model:
    """A model whose parameters, and what passes between its blocks, take 2 bytes a number; its data stay as they are.

    Raises ValueError for a mixture of experts: what its gate sends along counts tokens, beyond what 2 bytes can count.

    >>> reduced(Model.of_times(blocks=2, activation_bytes=8)).blocks[1].input_bytes
    4.0
    """
    if "reduced" not in model.cuts:
        share = WIDTH / model.parameter_bytes
        blocks = tuple(_block(number, block, share) for number, block in enumerate(model.blocks))
        model.cuts["reduced"] = replace(model, blocks=blocks, parameter_bytes=WIDTH)
    return model.cuts["reduced"]


def _block(number: int, block: Block, share: float) -> Block:
    if any(part.routes for part in block.parts):
        raise ValueError(
            f"in 2 bytes one cannot count the tokens that go to experts; block {number} sends some to experts: learn"
            " a mixture of experts without MixedPrecision"
        )
    return replace(
        block,
        input_bytes=block.input_bytes * share if number else block.input_bytes,
        saved_bytes=None if block.saved_bytes is None else block.saved_bytes * share,
        parts=tuple(_part(part, share) for part in block.parts),
    )


def _part(part: Part, share: float) -> Part:
    return replace(
        part,
        output_bytes=part.output_bytes * share,
        saved_bytes=None if part.saved_bytes is None else part.saved_bytes * share,
        saved_units=part.saved_units * share,
    )
