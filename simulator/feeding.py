"""What a rank fetches of a batch: its samples, made ready, and of these its columns or its tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .problems.parts import Rows
from .program import Load
from .values import bounds

if TYPE_CHECKING:
    from .learning import Tensors


def fetched(tensors: Tensors, load: Load) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets of one of this rank's microbatches, of the step that it is in or of the one that is named."""
    me = tensors.me
    inputs, targets = tensors.batches.of(me.step if load.step is None else load.step)
    start, end = me.slice
    first, last = bounds(end - start, load.microbatch % me.microbatches, me.microbatches)
    mine = slice(start + first, start + last)
    inputs, targets = tensors.problem.prepared(inputs[mine], targets[mine])
    return _tokens(tensors, _columns(tensors, inputs)), _tokens(tensors, targets)


def _columns(tensors: Tensors, samples: torch.Tensor) -> torch.Tensor:
    """Those that this rank's part of the first block reads, where ranks share the columns of the data."""
    cut, parts = tensors.me.cut, tensors.flat.parts
    if not cut.vertical or cut.tensor[1] == 1 or 0 not in parts:
        return samples
    first = parts[0][0]
    if not isinstance(first, Rows) or not samples.is_floating_point():
        raise ValueError(
            f"ranks share the columns of the data where the first block begins with a Linear; it begins with a"
            f" {type(first).__name__}: leave vertical=True out"
        )
    return samples[..., slice(*first.inputs)]


def _tokens(tensors: Tensors, samples: torch.Tensor) -> torch.Tensor:
    """Those of this rank, where ranks share the tokens of a sample."""
    index, of = tensors.me.cut.context
    if of == 1:
        return samples.to(tensors.device)
    if samples.dim() < 2 or samples.shape[1] % of:
        raise ValueError(
            f"context parallelism splits the tokens of a sample evenly over {of} ranks; got samples of shape"
            f" {tuple(samples.shape[1:])}"
        )
    return samples[:, slice(*bounds(samples.shape[1], index, of))].to(tensors.device)
