"""What the strategies of the table learn: small, float64, with batches that do not split evenly."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from time import sleep

import torch
import torch.distributed as dist

import simulator as sim

from . import model_problems


class Scaled(torch.nn.Module):
    """A block with parameters that learn and parameters that do not."""

    def __init__(self, width: int):
        super().__init__()
        self.linear = torch.nn.Linear(width, width)
        self.scale = torch.nn.Parameter(torch.linspace(0.5, 1.5, width), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of ``[samples, width]`` the same shape."""
        out: torch.Tensor = self.linear(x) * self.scale
        return out


def own_blocks() -> list[torch.nn.Module]:
    """Blocks as users write them: some without parameters, the first among them; some frozen."""
    return [torch.nn.Flatten(), torch.nn.Linear(6, 5), torch.nn.Tanh(), Scaled(5), torch.nn.Linear(5, 1)]


class Late(torch.nn.Module):
    """A block that is slow on the last of several real ranks, and nowhere else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What came in."""
        if dist.is_initialized() and dist.get_rank() == dist.get_world_size() - 1 > 0:
            sleep(0.05)
        return x


def late_blocks() -> list[torch.nn.Module]:
    """A worker with these is always late, for real."""
    return [torch.nn.Flatten(), torch.nn.Linear(6, 4), Late(), torch.nn.Linear(4, 1)]


def own_data(seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Fourteen samples, which neither 3 nor 4 workers can share evenly."""
    inputs = torch.randn(14, 2, 3)
    return inputs, inputs.flatten(1).sin().sum(1, keepdim=True)


PROBLEMS: dict[str, Callable[[], sim.Problem]] = {
    "mlp": lambda: sim.problem("digits-mlp", dtype="float64", hidden=16, batch=25),
    "deep": lambda: sim.problem("digits-mlp", dtype="float64", layers=8, hidden=12, batch=25),
    "conv": lambda: sim.problem("digits-conv", dtype="float64", channels=2, batch=18),
    "gpt": lambda: sim.problem("tiny-gpt", dtype="float64", layers=2, hidden=16, heads=2, sequence=12, batch=9),
    "even": lambda: sim.problem("digits-mlp", dtype="float64", hidden=16, batch=24),
    "even-gpt": lambda: sim.problem("tiny-gpt", dtype="float64", layers=2, hidden=16, heads=4, sequence=12, batch=8),
    "moe": lambda: sim.problem(
        "tiny-moe", dtype="float64", layers=1, hidden=16, heads=4, sequence=12, experts=4, batch=8
    ),
    "moe-2": lambda: sim.problem(
        "tiny-moe", dtype="float64", layers=1, hidden=16, heads=4, sequence=12, experts=5, top=2, batch=9
    ),
    "quadratic": lambda: sim.problem("quadratic", dtype="float64", spectrum=(1.0, 0.1, 0.3, 2.0), blocks=4, batch=9),
    "own": lambda: sim.Problem(own_blocks, torch.nn.functional.mse_loss, own_data, dtype="float64"),
    **model_problems.PROBLEMS,
    "late": lambda: sim.Problem(late_blocks, torch.nn.functional.mse_loss, own_data, dtype="float64"),
}


@cache
def problem(name: str) -> sim.Problem:
    """A problem of the table; float64, small, with batches that do not split evenly."""
    return PROBLEMS[name]()


