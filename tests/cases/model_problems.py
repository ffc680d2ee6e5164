"""Problems whose models bring more along than parameters that learn: ties, frozen parameters, dropout, buffers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

import simulator as sim

LETTERS, WIDTH = 11, 6


class Scores(nn.Module):
    """A LayerNorm, and scores by an embedding's own letters."""

    def __init__(self, embedding: nn.Embedding):
        super().__init__()
        self.letter, self.norm = embedding.weight, nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[samples, tokens, WIDTH]`` to ``[samples, tokens, LETTERS]``."""
        return functional.linear(self.norm(x), self.letter)


class Transposed(nn.Module):
    """Another block's Linear the other way round, with a bias of its own."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight, self.bias = linear.weight, nn.Parameter(torch.zeros(linear.in_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[…, outputs]`` to ``[…, inputs]``."""
        return x @ self.weight + self.bias


def tied_blocks() -> list[nn.Module]:
    """The last block shares the first one's parameters, the fourth the second one's."""
    embedding, linear = nn.Embedding(LETTERS, WIDTH), nn.Linear(WIDTH, 5)
    return [embedding, linear, nn.Tanh(), Transposed(linear), nn.Linear(WIDTH, WIDTH), Scores(embedding)]


def letters(seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Fourteen samples of five letters, and those that follow by a rule."""
    inputs = torch.randint(0, LETTERS, (14, 5))
    return inputs, (3 * inputs + 1) % LETTERS


def spelling(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The mean over samples and letters."""
    return functional.cross_entropy(output.flatten(0, 1), targets.flatten())


def frozen_blocks() -> list[nn.Module]:
    """Layers that ranks can split: the first is frozen, of the third only the bias learns."""
    blocks = [nn.Sequential(nn.Linear(6, 8), nn.Tanh()), nn.Linear(8, 6), nn.Linear(6, 5), nn.Linear(5, 4)]
    blocks[0].requires_grad_(False)
    blocks[2].weight.requires_grad_(False)
    return blocks


def dropping_blocks() -> list[nn.Module]:
    """Two of them drop numbers at random."""
    dropping = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.3))
    return [nn.Linear(6, 8), nn.Dropout(0.2), dropping, nn.Linear(8, 4)]


def normed_blocks() -> list[nn.Module]:
    """Two of them keep the means and variances of the batches that they see."""
    return [nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))]


def points(seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sixteen samples of six numbers."""
    inputs = torch.randn(16, WIDTH)
    return inputs, inputs[:, :4].sin()


def regression(blocks: Callable[[], list[nn.Module]]) -> Callable[[], sim.Problem]:
    """Learn ``points``."""
    return lambda: sim.Problem(blocks, functional.mse_loss, points, dtype="float64")


PROBLEMS: dict[str, Callable[[], sim.Problem]] = {
    "tied": lambda: sim.Problem(tied_blocks, spelling, letters, dtype="float64"),
    "frozen": regression(frozen_blocks),
    "dropping": regression(dropping_blocks),
    "normed": regression(normed_blocks),
}
