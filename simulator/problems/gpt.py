"""A tiny GPT that learns to spell like Shakespeare, character by character."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files

import torch
from torch import nn
from torch.nn import functional

from ..problem import Problem
from ..rules import Adam
from .draws import generator
from .knobs import require_counts

TRAINING = 0.9
"""The share of the text that trains; the rest is held back for evaluation."""


def tiny_gpt(
    layers: int = 4,
    hidden: int = 64,
    heads: int = 4,
    sequence: int = 64,
    batch: int = 16,
    lr: float = 3e-3,
    dtype: str = "float32",
) -> Problem:
    """Predict the next character of eighteen sonnets of 1609, from up to ``sequence`` characters before it.

    ``layers + 2`` blocks: embedding, ``layers`` transformer blocks of width ``hidden``, and the output. A sample is
    a window of the text; the windows of a step start at different places. Trained with Adam.

    Raises ValueError for knobs below 1, ``heads`` that do not divide ``hidden``, or windows longer than the text
    held back.
    """
    require_counts("tiny-gpt", layers=layers, hidden=hidden, heads=heads, sequence=sequence, batch=batch)
    if hidden % heads:
        raise ValueError(f"tiny-gpt: heads share hidden evenly; got hidden={hidden}, heads={heads}")
    _, train, held_back = _text()
    if sequence >= len(held_back):
        raise ValueError(f"tiny-gpt: a sequence is shorter than the {len(held_back)} letters held back; got {sequence}")
    if batch > len(train) - sequence:
        raise ValueError(f"tiny-gpt: {len(train) - sequence} windows are there to choose from; got batch={batch}")
    return Problem(
        blocks=partial(_blocks, layers, hidden, heads, sequence),
        loss=_loss,
        data=Windows(sequence, batch),
        evaluation=partial(_evaluation, sequence),
        rule=Adam(lr),
        dtype=dtype,
        name="tiny-gpt",
    )


class Embedding(nn.Module):
    """Characters ``[samples, sequence]`` to vectors ``[samples, sequence, hidden]``, their places added."""

    def __init__(self, letters: int, sequence: int, hidden: int):
        super().__init__()
        self.letter = nn.Parameter(0.02 * torch.randn(letters, hidden))
        self.place = nn.Parameter(0.02 * torch.randn(sequence, hidden))

    def forward(self, letters: torch.Tensor) -> torch.Tensor:
        """Look both up and add them."""
        return functional.embedding(letters, self.letter) + self.place[: letters.shape[1]]


class Attention(nn.Module):
    """Causal self-attention: every place reads those before it."""

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.heads = heads
        self.read = nn.Linear(hidden, 3 * hidden)
        self.write = nn.Linear(hidden, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[samples, sequence, hidden]`` to the same shape."""
        query, key, value = self.read(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        written: torch.Tensor = self.write(mixed.transpose(1, 2).flatten(2))
        return written


class Transformer(nn.Module):
    """One pre-norm transformer block: attention, then two Linear around a GELU, both added to what came in."""

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(hidden), Attention(hidden, heads))
        self.think = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[samples, sequence, hidden]`` to the same shape."""
        x = x + self.attention(x)
        x = x + self.think(x)
        return x


@dataclass(frozen=True)
class Windows:
    """The data: ``[batch, sequence]`` characters, and as targets the character after each."""

    sequence: int
    batch: int

    def __call__(self, seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The batch of a step."""
        _, train, _ = _text()
        starts = torch.randperm(len(train) - self.sequence, generator=generator(seed, step))[: self.batch]
        windows = train[starts[:, None] + torch.arange(self.sequence + 1)]
        return windows[:, :-1], windows[:, 1:]


def _blocks(layers: int, hidden: int, heads: int, sequence: int) -> list[nn.Module]:
    letters = len(_text()[0])
    embedding = Embedding(letters, sequence, hidden)
    output = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, letters))
    return [embedding, *(Transformer(hidden, heads) for _ in range(layers)), output]


def _loss(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(output.flatten(0, 1), targets.flatten())


def _evaluation(sequence: int, blocks: Sequence[nn.Module]) -> dict[str, float]:
    held_back = _text()[2]
    windows = held_back[: (len(held_back) - 1) // sequence * sequence + 1].unfold(0, sequence + 1, sequence)
    output = windows[:, :-1]
    for block in blocks:
        output = block(output)
    return {"loss": float(_loss(output, windows[:, 1:]))}


@cache
def _text() -> tuple[str, torch.Tensor, torch.Tensor]:
    """The letters that occur, and the text that trains and that is held back as their numbers. See ORIGIN.md."""
    text = files(__package__).joinpath("sonnets.txt").read_text(encoding="utf-8")
    letters = "".join(sorted(set(text)))
    numbers = torch.tensor([letters.index(letter) for letter in text])
    cut = int(TRAINING * len(text))
    return letters, numbers[:cut], numbers[cut:]
