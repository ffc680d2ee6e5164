"""Where the numbers of a rank lie: one flat vector of its parameters, and one of their gradients.

So ``Grads((1, 2))`` or a ``Chunk`` of it is a piece of memory, and a collective or a rule works on it without copying.
"""

from __future__ import annotations

from copy import deepcopy
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING

import torch

from .buffers import BlockBuffers
from .holdings import Piece
from .masters import Masters
from .problems.blocks import own_parameters, ties
from .problems.parts import PartModule, parts_of
from .values import Buffers, Chunk, Grads, Params, Replicated, Tied, Value, bounds

if TYPE_CHECKING:
    from .rank import Rank


class Layout:
    """The modules of a rank's blocks, and the flat vectors that their parameters are views of.

    - ``modules``: by block; ``parts``: by block, its parts, where ranks run blocks together (then they are what holds
      the parameters).
    - ``params``, ``grads``: the flat vectors, blocks in ascending order.
    - ``frozen``: which elements do not learn; None where all do.
    - ``masters``: the same parameters in full width, where the modules compute in fewer bits.
    - ``borrowed``: parameters and gradients of blocks that the rank has not, which blocks of its own use too.
    - ``buffers``: by block, what it keeps beside its parameters.
    """

    def __init__(self, me: Rank, every: list[torch.nn.Module], device: str):
        self.me, self.device, self.every = me, device, every
        self.blocks = tuple(sorted(me.blocks))
        self.modules = {block: every[block].to(device).train() for block in self.blocks}
        split = [block for block in self.blocks if me.cut.splits(me.whole_model.blocks[block])]
        self.parts = {block: parts_of(self.modules[block], me.cut) for block in split}
        self.own = [[parameter for _, parameter in mine] for mine in own_parameters(every)]
        self.held = [parameter for block in self.blocks for parameter in self.parameters(block)]
        self.starts = dict(zip(self.blocks, accumulate(map(self._size, self.blocks), initial=0)))
        self.spans: dict[tuple[int, ...], tuple[int, int]] = {}  # asked for at every collective and update
        full = self._narrowed()
        self.params, self.grads = _flatten(self.held, device)
        self.frozen = _frozen(self.held, device)
        self.masters = None if me.reduced is None else Masters(self, full, me.reduced.accumulate)
        self.borrowed = self._borrow(ties(every))
        self.buffers = {block: BlockBuffers(module) for block, module in self.modules.items()}

    def _narrowed(self) -> torch.Tensor:
        """Where blocks compute in fewer bits, round their parameters; those in full width as one vector."""
        if self.me.reduced is None:
            return torch.empty(0)
        full = [parameter.detach().reshape(-1) for parameter in self.held]
        for module in (*self.modules.values(), *(part for parts in self.parts.values() for part in parts)):
            module.to(self.me.reduced.torch_dtype)
        return torch.cat(full) if full else torch.empty(0, device=self.device)

    @property
    def wide(self) -> Layout:
        """The layout in full width, for updates and for the loss."""
        return self if self.masters is None else self.masters.wide

    def narrow(self, tensor: torch.Tensor) -> torch.Tensor:
        """Activations in the type in which blocks compute; whole numbers as they are."""
        if self.me.reduced is None or not tensor.is_floating_point():
            return tensor
        return tensor.to(self.me.reduced.torch_dtype)

    def parameters(self, block: int) -> list[torch.nn.Parameter]:
        """What a rank holds of a block's parameters, in the order in which they lie in the flat vector."""
        if block not in self.parts:
            return self.own[block]
        return [p for part in _in_order(self.parts[block]) for p in part.parameters()]

    def _size(self, block: int) -> int:
        return sum(parameter.numel() for parameter in self.parameters(block))

    def _borrow(self, tied: list[dict[Tied, torch.nn.Parameter]]) -> dict[Tied, tuple[torch.Tensor, torch.Tensor]]:
        """Give those parameters that belong to a block of another rank memory of their own."""
        mine = [pair for block in self.blocks for pair in tied[block].items()]
        found = {tie: parameter for tie, parameter in mine if tie.block not in self.starts}
        if found and self.me.reduced is not None and self.me.reduced.accumulate:
            raise ValueError(
                f"gradients of parameters that are tied across ranks, such as {next(iter(found))}, are sent as blocks"
                " compute them: use MixedPrecision without accumulate"
            )
        return {tie: _flatten([parameter], self.device) for tie, parameter in found.items()}

    def region(self, value: Value) -> torch.Tensor | None:
        """The piece of the flat vectors that a value names; None for values that are kept by name.

        Raises ValueError when the rank does not have those blocks side by side.
        """
        if isinstance(value, Chunk):
            whole = self.region(value.value)
            return None if whole is None else whole[slice(*bounds(whole.numel(), value.index, value.of))]
        if isinstance(value, Tied):
            return self._tied(value)
        if isinstance(value, Buffers):
            return self.buffers[value.block].numbers()
        if isinstance(value, Replicated):
            whole = self.region(value.value)
            return None if whole is None else whole[slice(*self.me.replicated(value))]
        if not isinstance(value, (Params, Grads)):
            return None
        first, last = self._span(value)
        return (self.params if isinstance(value, Params) else self.grads)[first:last]

    def _tied(self, value: Tied) -> torch.Tensor:
        if value.block in self.starts:
            whole = self.region(value.value)
            assert whole is not None
            return whole[value.first : value.last]
        params, grads = self.borrowed[Tied(Params(value.block), value.first, value.last)]
        return params if isinstance(value.value, Params) else grads

    def _span(self, value: Params | Grads) -> tuple[int, int]:
        if value.blocks not in self.spans:
            self.spans[value.blocks] = self._found(value)
        return self.spans[value.blocks]

    def _found(self, value: Params | Grads) -> tuple[int, int]:
        """First element and one past the last of blocks that lie side by side."""
        first, last = value.blocks[0], value.blocks[-1]
        if first not in self.starts or last not in self.starts:
            raise ValueError(f"rank {self.me.rank} has the blocks {self.me.blocks}; got {value}")
        places = [self.blocks.index(block) if block in self.starts else -1 for block in value.blocks]
        if places != list(range(places[0], places[-1] + 1)):
            raise ValueError(
                f"a value of several blocks names neighbours in ascending order, of those that the rank has"
                f" ({self.me.blocks}); got {value}"
            )
        return self.starts[first], self.starts[last] + self._size(last)

    def tensors(self, region: torch.Tensor) -> list[torch.Tensor]:
        """The parts of a region of ``params`` that belong to one parameter each, in its shape where it is whole."""
        first, last = int(region.storage_offset()), int(region.storage_offset()) + region.numel()
        found, start = [], 0
        for parameter in self.held:
            end = start + parameter.numel()
            if start >= first and end <= last:
                found.append(self.params[start:end].view_as(parameter))
            elif max(start, first) < min(end, last):
                found.append(self.params[max(start, first) : min(end, last)])
            start = end
        return found

    def add_up(self, block: int) -> None:
        """A backward pass of a block is over: its gradients join those of the step, where these are kept apart."""
        if self.masters is not None:
            self.masters.add_up(self.starts[block], self.starts[block] + self._size(block))

    def gradients(self, region: torch.Tensor) -> torch.Tensor:
        """The gradients that belong to a region of ``params``."""
        return self.grads[region.storage_offset() :][: region.numel()]

    # ------------------------------------------------------------ where it belongs

    def found(self, region: torch.Tensor) -> list[Piece]:
        """The numbers of a region of ``params``, and where they lie in the flat vector of all blocks' parameters."""
        first = int(region.storage_offset())
        last, found = first + region.numel(), list[Piece]()
        for block, start in self.starts.items():
            a, b = max(start, first), min(start + self._size(block), last)
            if a < b:
                numbers = self.params[a:b].detach().to(self.wide.params.dtype).cpu().numpy().copy()
                found.append((self.origins[block][a - start : b - start].numpy(), numbers))
        return found

    @cached_property
    def origins(self) -> dict[int, torch.Tensor]:
        """For each of a rank's blocks, where its elements lie in the flat vector of all blocks."""
        sizes = [sum(prod(parameter.shape) for parameter in mine) for mine in self.own]
        begins = list(accumulate(sizes, initial=0))
        return {block: begins[block] + self._order(block, sizes[block]) for block in self.blocks}

    def _order(self, block: int, size: int) -> torch.Tensor:
        """Found by cutting a block whose parameters are their own numbers."""
        if block not in self.parts:
            return torch.arange(size)
        numbered = deepcopy(self.modules[block]).cpu().double()
        with torch.no_grad():
            start = 0
            for parameter in numbered.parameters():
                parameter.copy_(torch.arange(start, start + parameter.numel()).view_as(parameter))
                start += parameter.numel()
        held = [p for part in _in_order(parts_of(numbered, self.me.cut)) for p in part.parameters()]
        return torch.cat([p.detach().reshape(-1) for p in held]).round().long() if held else torch.arange(0)


def _in_order(parts: list[PartModule]) -> list[PartModule]:
    """What is split over "tensor" first, then what every rank has, then experts; see ``cutting.replicated``."""
    return sorted(parts, key=lambda part: 2 if part.experts else 0 if part.units else 1)


def _frozen(parameters: list[torch.nn.Parameter], device: str) -> torch.Tensor | None:
    """Which elements of the flat vector of parameters do not learn; None where all do."""
    if all(parameter.requires_grad for parameter in parameters):
        return None
    return torch.cat([torch.full((p.numel(),), not p.requires_grad, device=device) for p in parameters])


def _flatten(parameters: list[torch.nn.Parameter], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Move parameters, and zero gradients for them, into one vector each; the modules keep views."""
    if not parameters:
        return torch.empty(0, device=device), torch.empty(0, device=device)
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    grads = torch.zeros_like(flat)
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        parameter.data = flat[start:end].view_as(parameter)
        parameter.grad = grads[start:end].view_as(parameter)
        start = end
    return flat, grads
