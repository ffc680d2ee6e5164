"""What a block keeps beside its parameters, as one piece of memory that a collective works on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .problems.blocks import named_buffers

if TYPE_CHECKING:
    import numpy as np


class BlockBuffers:
    """The buffers of a block, in one vector of which the module has views, even where it replaces them by others."""

    def __init__(self, module: torch.nn.Module):
        self.module = module
        found = [buffer.detach().reshape(-1) for _, buffer in named_buffers(module)]
        self.flat = torch.cat(found) if found else torch.empty(0)
        self.numbers()

    def numbers(self) -> torch.Tensor:
        """All of them, one after another."""
        start = 0
        for _, buffer in named_buffers(self.module):
            view = self.flat[start : start + buffer.numel()].view_as(buffer)
            if buffer.data_ptr() != view.data_ptr():
                view.copy_(buffer)
                buffer.data = view
            start += buffer.numel()
        return self.flat

    def named(self, block: int) -> dict[str, np.ndarray]:
        """Each of them by its name, ``"<block>.<name in the module>"``."""
        self.numbers()
        found = {name: _array(buffer.detach().cpu()) for name, buffer in named_buffers(self.module)}
        return {f"{block}.{name}": array for name, array in found.items()}


def _array(buffer: torch.Tensor) -> np.ndarray:
    """A copy; of numbers in fewer bits, which numpy may not know, in 4 bytes."""
    short = buffer.is_floating_point() and buffer.element_size() < 4
    array: np.ndarray = (buffer.float() if short else buffer).numpy().copy()
    return array
