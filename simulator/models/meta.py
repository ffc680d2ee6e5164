"""Torch modules on the meta device, where tensors have shapes and no numbers."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn

from ..problems.inspection import applied


def on_meta(module: nn.Module) -> nn.Module:
    """A copy without numbers; what is tied stays tied, and what a module only keeps, such as a mask, comes along."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in module.parameters()}
    kept = [one for part in module.modules() for one in vars(part).values() if isinstance(one, torch.Tensor)]
    return deepcopy(module, memo | {id(one): one.to("meta") for one in (*module.buffers(), *kept)})


def shape_of(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor without numbers, where a gradient ends."""
    return tensor.detach().to("meta").requires_grad_(tensor.is_floating_point())


def called(number: int, module: nn.Module, acts: Any) -> Any:
    """What a module makes of its inputs, given as it is called: one, in order, or by name."""
    if number and not isinstance(acts, torch.Tensor):
        raise ValueError(f"one tensor passes from block to block; block {number - 1} returned a {type(acts).__name__}")
    try:
        if isinstance(acts, dict):
            return module(**acts)
        return module(*acts) if isinstance(acts, (tuple, list)) else applied(number, module, acts)
    except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError) as error:
        if "meta" in str(error):
            raise ValueError(
                f"only shapes are known of what enters block {number}, so its forward cannot look at numbers, as in"
                f" `if x.sum() > 0` or x.item(): give a module without that; torch says: {error}"
            ) from error
        if isinstance(acts, (tuple, list, dict)):
            said = f"{type(error).__name__}: {error}"
            raise ValueError(f"block {number} cannot take the inputs of sample: {said}") from error
        raise


def check_samples(number: int, out: Any, samples: int) -> None:
    """What leaves a block has as many samples as entered, or rows of them; a loss has none."""
    if isinstance(out, torch.Tensor) and out.dim() and len(out) % samples:
        raise ValueError(
            f"blocks keep the samples along the first dimension; block {number} made shape {tuple(out.shape)} of"
            f" {samples} sample(s): where sample is a single one, give sample.unsqueeze(0)"
        )
