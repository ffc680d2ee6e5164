"""What all native engines share: the problem's model, data, loss and optimizer, and the plain training loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from math import prod
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from simulator.holdings import Piece
from simulator.problem import Problem
from simulator.problems.blocks import named_parameters
from simulator.problems.draws import mix, seeded
from simulator.rank import Rank
from simulator.rules import Rule
from simulator.stack import Stack

from ..observed import Observed, placed
from ..place import Place
from .log import Log


class Chain(nn.Module):
    """Neighbouring blocks of a problem, one after another.

    Its parameters are named as those of the problem, after ``"blocks."``. What a block draws from torch's random
    numbers depends on seed, step, block, microbatch and worker, as everywhere in this package.
    """

    def __init__(self, training: Training, blocks: Mapping[int, nn.Module]):
        super().__init__()
        self.blocks = nn.ModuleDict({str(number): block for number, block in blocks.items()})
        self.training_of, self.microbatch = training, 0

    def forward(self, act: torch.Tensor) -> torch.Tensor:
        """What the blocks make of what enters the first."""
        for number, block in self.blocks.items():
            act = self.training_of.applied(block, int(number), self.microbatch, act)
        return act


@dataclass(frozen=True)
class Training:
    """One rank's share in the training of a problem."""

    place: Place
    me: Rank
    problem: Problem
    seed: int
    rule: Rule
    log: Log

    @classmethod
    def of(cls, place: Place, stack: Stack, problem: Problem, steps: int, seed: int) -> Training:
        """The share of a place, with torch warm. The log calls the group of all ranks by the axis that has them all."""
        me, rule = placed(place, stack, problem, steps)
        axis = next((axis for axis, size in me.grid.items() if size == place.ranks), "world")
        return cls(place, me, problem, seed, rule, Log(place, steps, axis))

    def observed(self, pieces: list[Piece]) -> Observed:
        """What the rank brings back; ``pieces`` are the parameters that it holds at the end."""
        return Observed(self.log.spans, self.log.samples, [], pieces, self.log.clock.error)

    @cached_property
    def named_blocks(self) -> list[nn.Module]:
        """All blocks with their initial weights, on this rank's device."""
        return [block.to(self.place.device).train() for block in self.problem.build(self.seed)]

    def chain(self, first: int = 0, last: int | None = None) -> Chain:
        """The blocks from ``first`` to before ``last`` as one module."""
        every = self.named_blocks
        numbers = range(first, len(every) if last is None else last)
        return Chain(self, {number: every[number] for number in numbers})

    def mesh(self) -> DeviceMesh:
        """The rank grid as PyTorch's device mesh, with the same axes."""
        return _mesh(torch.device(self.place.device).type, tuple(self.me.grid.items()))

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """My slice of the batch of this step."""
        inputs, targets = self.problem.batch_of(self.seed, self.log.step)
        mine = slice(*self.me.slice)
        return inputs[mine].to(self.place.device), targets[mine].to(self.place.device)

    @property
    def weight(self) -> float:
        """By what my mean loss is multiplied, so that the mean over workers is the mean over the batch.

        Workers that learn for themselves learn from the mean over their own slice.
        """
        start, end = self.me.slice
        return 1.0 if self.me.local else (end - start) * self.workers / self.problem.batch

    @property
    def worker(self) -> int:
        """Which of the workers I am."""
        return self.me.share[0] if self.me.share is not None else 0

    @property
    def workers(self) -> int:
        """Into how many slices every global batch is cut."""
        return self.me.share[1] if self.me.share is not None else 1

    def applied(self, function: Any, number: int, microbatch: int, entering: torch.Tensor, *more: Any) -> torch.Tensor:
        """Call a block, or the loss, whose number is the next."""
        traits = self.problem.traits
        if number in traits.overwrites:
            entering = entering.clone()
        if number not in traits.draws:
            return function(entering, *more)  # type: ignore[no-any-return]
        chance = mix(self.seed, self.log.step, number, microbatch, self.worker)
        with seeded(chance, self.place.device):
            return function(entering, *more)  # type: ignore[no-any-return]

    def loss(self, output: torch.Tensor, targets: torch.Tensor, microbatch: int = 0) -> torch.Tensor:
        """The mean loss over what is given."""
        return self.applied(self.problem.loss, len(self.named_blocks), microbatch, output, targets)

    def optimizer(self, named: Iterable[tuple[str, torch.Tensor]]) -> torch.optim.Optimizer:
        """The rule's optimizer for those of the named parameters that learn."""
        learn = [(own_name(name), parameter) for name, parameter in named if parameter.requires_grad]
        return self.rule.optimizer(learn if self.rule.per_tensor else [parameter for _, parameter in learn])

    def weighted(self, loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> torch.Tensor:
        """What the backward pass begins with: the loss with its weight, scaled where the rule says so."""
        return loss * (self.weight * self.rule.loss_scale(optimizer))

    def pieces(self, named: Iterable[tuple[str, torch.Tensor]]) -> list[Piece]:
        """Parameters by the problem's names, as pieces of the flat vector of all."""
        offsets = self._offsets
        return [
            (offsets[own_name(name)], tensor.detach().cpu().contiguous().numpy().reshape(-1).copy())
            for name, tensor in named
        ]

    @cached_property
    def _offsets(self) -> dict[str, int]:
        offsets, end = {}, 0
        for name, tensor in named_parameters(self.problem.build(self.seed)):
            offsets[name], end = end, end + prod(tensor.shape)
        return offsets

    def train(self, model: nn.Module, optimizer: torch.optim.Optimizer, notes_losses: bool = True) -> None:
        """The loop as one writes it with PyTorch alone, its phases noted."""
        for _ in self.log.steps():
            self.step(model, optimizer, notes_losses)

    def step(self, model: nn.Module, optimizer: torch.optim.Optimizer, notes_losses: bool = True) -> None:
        """One step of the loop. ``notes_losses``: of ranks that all know the same loss, one notes it."""
        log = self.log
        with log.phase("Load mb0"):
            inputs, targets = self.batch()
        with log.phase("Forward all"):
            output = model(inputs)
        with log.phase("Loss mb0"):
            loss = self.loss(output, targets)
        if notes_losses:
            log.loss(loss.item())
        with log.phase("Backward all"):
            self.weighted(loss, optimizer).backward()
        with log.phase("Update all"):
            self.rule.step(optimizer)
            optimizer.zero_grad()


def own_name(name: str) -> str:
    """A parameter's name in the problem, from that in a ``Chain``, wrapped or not.

    >>> own_name("module.blocks.0.weight")
    '0.weight'
    """
    return name.partition("blocks.")[2]


@cache
def _mesh(device: str, axes: tuple[tuple[str, int], ...]) -> DeviceMesh:
    """Made once per process and shape: every mesh makes process groups, which are never given back."""
    names, sizes = zip(*axes)
    return init_device_mesh(device, sizes, mesh_dim_names=names)
