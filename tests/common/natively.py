"""Problems and rows of PyTorch's own engines, run once for all tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import fsum

import torch

import simulator as sim

STEPS, SEED = 3, 7


class Dropping(torch.nn.Module):
    """A block that draws random numbers, and writes over what enters it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Half of it."""
        return torch.nn.functional.dropout(x.tanh_(), 0.5, self.training)


def odd_blocks() -> list[torch.nn.Module]:
    """Blocks as users write them: without parameters, with frozen ones, with chance."""
    frozen = torch.nn.Linear(5, 5)
    frozen.weight.requires_grad_(False)
    return [torch.nn.Flatten(), torch.nn.Linear(6, 5), frozen, Dropping(), torch.nn.Linear(5, 1)]


def odd_data(seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Fourteen samples."""
    inputs = torch.randn(14, 2, 3)
    return inputs, inputs.flatten(1).sin().sum(1, keepdim=True)


PROBLEMS: dict[str, Callable[[], sim.Problem]] = {
    "mlp": lambda: sim.problem("digits-mlp", dtype="float64", hidden=16, batch=24),
    "uneven": lambda: sim.problem("digits-mlp", dtype="float64", hidden=16, batch=25),
    "gpt": lambda: sim.problem("tiny-gpt", dtype="float64", layers=2, hidden=16, heads=4, sequence=12, batch=8),
    "odd": lambda: sim.Problem(odd_blocks, torch.nn.functional.mse_loss, odd_data, dtype="float64"),
}


@cache
def problem(name: str) -> sim.Problem:
    """A small problem in float64."""
    return PROBLEMS[name]()


@cache
def truth(name: str) -> sim.Run:
    """What a single process learns."""
    return sim.simulate(sim.Single(), problem(name), sim.cluster("ideal", ranks=1), steps=STEPS, seed=SEED)


def mean_losses(run: sim.Run) -> list[float]:
    return [row if isinstance(row, float) else row.loss for row in run.losses]


def sent(run: sim.Run, *kinds: str) -> list[float]:
    """Bytes of some kinds of collective, by rank, per step."""
    return [
        fsum(s.bytes for s in run.spans if s.rank == rank and s.instruction.split()[0] in kinds) / STEPS
        for rank in range(run.ranks)
    ]


def psi(name: str) -> int:
    """Bytes of all parameters."""
    return 8 * problem(name).model().parameters
