"""Mixed precision's other copy: parameters in full width, to which updates are made, and their gradients."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .layout import Layout
    from .values import Value


class Masters:
    """Beside a layout of rounded parameters, ``wide`` is one of the same places in full width.

    ``added``: gradients in full width to which those of each backward pass are added, where they are accumulated so.
    """

    def __init__(self, flat: Layout, masters: torch.Tensor, accumulate: bool):
        self.flat, self.wide = flat, copy(flat)
        self.wide.params, self.wide.grads = masters, torch.zeros_like(masters)
        self.passing = flat.grads if accumulate else None  # what one backward pass gives
        if accumulate:
            flat.grads = self.wide.grads

    def add_up(self, first: int, last: int) -> None:
        """After a backward pass, elements ``first`` to ``last`` of its gradients join those of the step."""
        if self.passing is not None:
            self.flat.grads[first:last] += self.passing[first:last]
            self.passing[first:last].zero_()

    def before_update(self, params: Value) -> None:
        """Parameters that came from another rank count, not their old masters; gradients come in full width."""
        rounded, masters = self._regions(params)
        masters.copy_(torch.where(masters.to(rounded.dtype) == rounded, masters, rounded.to(masters.dtype)))
        if self.passing is None:
            self.wide.gradients(masters).copy_(self.flat.gradients(rounded))

    def after_update(self, params: Value) -> None:
        """The blocks get the new parameters, rounded."""
        rounded, masters = self._regions(params)
        rounded.copy_(masters)

    def _regions(self, params: Value) -> tuple[torch.Tensor, torch.Tensor]:
        rounded, masters = self.flat.region(params), self.wide.region(params)
        assert rounded is not None and masters is not None
        return rounded, masters
