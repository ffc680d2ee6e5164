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
from .transformer import Embedding, Output, Transformer

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
    _, train, held_back = whole_text()
    if sequence >= len(held_back):
        raise ValueError(f"tiny-gpt: a sequence is shorter than the {len(held_back)} letters held back; got {sequence}")
    if batch > len(train) - sequence:
        raise ValueError(f"tiny-gpt: {len(train) - sequence} windows are there to choose from; got batch={batch}")
    return Problem(
        blocks=partial(_blocks, layers, hidden, heads, sequence),
        loss=cross_entropy,
        data=Windows(sequence, batch),
        evaluation=partial(held_back_loss, sequence),
        rule=Adam(lr),
        dtype=dtype,
        name="tiny-gpt",
    )


@dataclass(frozen=True)
class Windows:
    """The data: ``[batch, sequence]`` characters, and as targets the character after each."""

    sequence: int
    batch: int

    def __call__(self, seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The batch of a step."""
        _, train, _ = whole_text()
        starts = torch.randperm(len(train) - self.sequence, generator=generator(seed, step))[: self.batch]
        windows = train[starts[:, None] + torch.arange(self.sequence + 1)]
        return windows[:, :-1], windows[:, 1:]


def _blocks(layers: int, hidden: int, heads: int, sequence: int) -> list[nn.Module]:
    count = len(letters())
    embedding = Embedding(count, sequence, hidden)
    return [embedding, *(Transformer(hidden, heads) for _ in range(layers)), Output(hidden, count)]


def cross_entropy(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The mean over samples and tokens."""
    return functional.cross_entropy(output.flatten(0, 1), targets.flatten())


def held_back_loss(sequence: int, blocks: Sequence[nn.Module]) -> dict[str, float]:
    """The loss on the text that is held back."""
    held_back = whole_text()[2]
    windows = held_back[: (len(held_back) - 1) // sequence * sequence + 1].unfold(0, sequence + 1, sequence)
    output = windows[:, :-1]
    for block in blocks:
        output = block(output)
    return {"loss": float(cross_entropy(output, windows[:, 1:]))}


def letters() -> str:
    """The letters that occur in the text."""
    return whole_text()[0]


@cache
def whole_text() -> tuple[str, torch.Tensor, torch.Tensor]:
    """The letters that occur, and the text that trains and that is held back as their numbers. See ORIGIN.md."""
    text = files(__package__).joinpath("sonnets.txt").read_text(encoding="utf-8")
    letters = "".join(sorted(set(text)))
    numbers = torch.tensor([letters.index(letter) for letter in text])
    cut = int(TRAINING * len(text))
    return letters, numbers[:cut], numbers[cut:]
