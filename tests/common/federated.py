"""What tests of local and federated methods share: small problems whose ends are known."""

from __future__ import annotations

from functools import cache

import torch
from cases import problem

import simulator as sim
from simulator import rules

A, X = (1.0, 10.0), (0.0, 1.0)
"""Curvatures and minima of two clients (H1)."""


class Bowl(torch.nn.Module):
    """A number x; every sample (a, m) has the loss a/2 (x - m)²."""

    def __init__(self, start: float):
        super().__init__()
        self.x = torch.nn.Parameter(torch.tensor([start], dtype=torch.float64))

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        """From ``[samples, 2]`` to ``[samples]``."""
        return sample[:, 0] / 2 * (self.x - sample[:, 1]) ** 2


class Slope(torch.nn.Module):
    """Numbers x; every sample has the loss x · sample, so that gradients are the data."""

    def __init__(self, size: int):
        super().__init__()
        self.x = torch.nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        """From ``[samples, size]`` to ``[samples]``."""
        return sample @ self.x


def mean(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The loss of both."""
    return output.mean()


def bowls(curvatures=A, minima=X, lr: float = 0.05, start: float = 0.3) -> sim.Problem:
    """A client for each bowl: the batch has a sample for each, always the same."""
    samples = torch.tensor([curvatures, minima], dtype=torch.float64).T.contiguous()
    return sim.Problem(
        blocks=lambda: [Bowl(start)],
        loss=mean,
        data=lambda seed, step: (samples, torch.zeros(len(samples))),
        rule=rules.SGD(lr),
        dtype="float64",
    )


def slopes(ranks: int, until: int = 100, lr: float = 0.1) -> sim.Problem:
    """Gradients that differ from worker to worker, and are zero from a step on."""

    def data(seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(ranks, 4, dtype=torch.float64) * (step < until), torch.zeros(ranks)

    return sim.Problem(lambda: [Slope(4)], mean, data, rule=rules.SGD(lr), dtype="float64")


def learn(strategy, workload: sim.Problem, ranks: int, steps: int, **knobs) -> sim.Run:
    """On a free network, so that nothing but the strategy matters."""
    return sim.simulate(strategy, workload, sim.cluster("ideal", ranks=ranks), steps=steps, seed=1, **knobs)


def found(run: sim.Run) -> float:
    """The one parameter of a bowl."""
    return float(run.parameters["0.x"][0])


@cache
def single(name: str, rule: rules.Rule | None = None, steps: int = 6) -> sim.Run:
    """What a single process learns."""
    return learn(sim.Single(rule=rule), problem(name), 1, steps)
