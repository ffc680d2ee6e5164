"""Mixed precision: blocks compute, and ranks send, numbers of 2 bytes; updates are made to a master copy of 4 bytes.

Small steps would be lost in a parameter of 2 bytes: a step below 1/256 of it (bf16) or 1/2048 (fp16) rounds to nothing.
So each update goes to the master copy, and its rounded value to the blocks. Small gradients would be lost in fp16: the
loss is multiplied by a scale, and gradients are divided by it in full width. Source: Micikevicius et al. 2018
(arXiv:1710.03740); bf16, which has the range of 4 bytes, needs no scale (Kalamkar et al. 2019, arXiv:1905.12322).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .. import checks
from ..precision import TYPES, Reduced
from ..rank import Rank
from ..rules import FixedScale, LossScale
from ..stack import Layer, Rules


@dataclass(frozen=True)
class MixedPrecision(Layer):
    """Compute, and communicate parameters, gradients and activations, in ``dtype``; update in the problem's own type.

    - ``dtype``: "bf16" or "fp16", or its name in torch.
    - ``scale``: multiply the loss by it, as ``rules.Scaled`` does around any rule: ``rules.LossScale()`` for one that
      adapts, ``rules.FixedScale(1024.0)``; None: by nothing.
    - ``accumulate``: add gradients of microbatches up, and send them, in the problem's own type.

    It stands anywhere over an order. Data come, and the loss is computed, in full width. Parameters at the end are
    those that blocks compute with. The virtual clock times operations in this type; where a model has only times or
    FLOP, these stay, and bytes alone change.

    Raises ValueError for other types, and, as a run begins, for mixtures of experts.

    >>> from simulator import DataParallel, rules, stack
    >>> print(stack(DataParallel(), MixedPrecision("fp16", scale=rules.FixedScale(1024.0))))
    DataParallel() + MixedPrecision(dtype='fp16', scale=FixedScale(initial=1024.0))
    """

    named: ClassVar[tuple[str, ...]] = ("dtype",)

    dtype: str = "bf16"
    scale: LossScale | FixedScale | None = None
    accumulate: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        longer = {f"{prefix}{name}": short for short, name in TYPES.items() for prefix in ("", "torch.")}
        object.__setattr__(self, "dtype", longer.get(str(self.dtype), self.dtype))
        if self.dtype not in [*TYPES]:
            raise ValueError(f"mixed precision computes in {' or '.join(map(repr, TYPES))}; got dtype={self.dtype!r}")
        checks.kind("scale", self.scale, (LossScale, FixedScale, type(None)), "rules.LossScale(), or None")
        checks.kind("accumulate", self.accumulate, bool, "True or False")

    @property
    def reduced(self) -> Reduced:
        return Reduced(self.dtype, self.accumulate, self.scale)

    def rules(self, me: Rank) -> Rules:
        return {}
