"""1 797 real handwritten digits of 8×8 pixels, from scikit-learn: a perceptron and a small convolutional net."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy
import torch
from torch import nn

from ..problem import Problem
from ..rules import SGD
from .draws import generator
from .knobs import require_counts

TRAINING = 1500
"""How many of the images train; the other 297 are held back for evaluation."""


def mlp(hidden: int = 64, layers: int = 4, batch: int = 48, lr: float = 0.2, dtype: str = "float32") -> Problem:
    """A perceptron of ``layers`` blocks, each a Linear and (but for the last) a ReLU, with ``hidden`` units between.

    Raises ValueError for knobs below 1, fewer than two layers, or a batch beyond the 1 500 training images.
    """
    require_counts("digits-mlp", hidden=hidden, layers=layers, batch=batch)
    if layers < 2:
        raise ValueError(f"digits-mlp: the first layer reads pixels, the last names digits; got layers={layers}")
    return _problem("digits-mlp", partial(_mlp_blocks, hidden, layers), (64,), batch, lr, dtype)


def conv(channels: int = 8, batch: int = 48, lr: float = 0.2, dtype: str = "float32") -> Problem:
    """A convolutional net of four blocks: three 3×3 convolutions, down to 2×2 pixels, and a Linear.

    ``channels`` leave the first convolution, twice as many the others. Raises ValueError for knobs below 1 or a
    batch beyond the 1 500 training images.
    """
    require_counts("digits-conv", channels=channels, batch=batch)
    return _problem("digits-conv", partial(_conv_blocks, channels), (1, 8, 8), batch, lr, dtype)


@dataclass(frozen=True)
class Digits:
    """The data: ``batch`` different training images a step, each of ``shape``, with pixels from 0 to 1."""

    shape: tuple[int, ...]
    batch: int

    def __call__(self, seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The batch of a step."""
        images, labels = all_images()
        chosen = torch.randperm(TRAINING, generator=generator(seed, step))[: self.batch]
        return images[chosen].reshape(-1, *self.shape), labels[chosen]


def _problem(
    name: str, blocks: partial[list[nn.Module]], shape: tuple[int, ...], batch: int, lr: float, dtype: str
) -> Problem:
    if batch > TRAINING:
        raise ValueError(f"{name}: a batch holds different images, of {TRAINING}; got batch={batch}")
    return Problem(
        blocks=blocks,
        loss=nn.functional.cross_entropy,
        data=Digits(shape, batch),
        evaluation=partial(_evaluation, shape),
        rule=SGD(lr),
        dtype=dtype,
        name=name,
    )


def _mlp_blocks(hidden: int, layers: int) -> list[nn.Module]:
    widths = [64] + [hidden] * (layers - 1)
    between = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(widths)]
    return [*between, nn.Linear(hidden, 10)]


def _conv_blocks(channels: int) -> list[nn.Module]:
    c = channels
    return [
        nn.Sequential(nn.Conv2d(1, c, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(c, 2 * c, 3, stride=2, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(2 * c, 2 * c, 3, stride=2, padding=1), nn.ReLU()),
        nn.Sequential(nn.Flatten(), nn.Linear(8 * c, 10)),
    ]


def _evaluation(shape: tuple[int, ...], blocks: Sequence[nn.Module]) -> dict[str, float]:
    images, labels = (tensor[TRAINING:] for tensor in all_images())
    output = images.reshape(-1, *shape).to(next(blocks[0].parameters()).dtype)
    for block in blocks:
        output = block(output)
    loss = nn.functional.cross_entropy(output, labels)
    return {"loss": float(loss), "accuracy": float((output.argmax(1) == labels).double().mean())}


@cache
def all_images() -> tuple[torch.Tensor, torch.Tensor]:
    """All images ``[1797, 64]`` and labels ``[1797]``, in an order drawn once for all."""
    table = torch.from_numpy(_table())
    table = table[torch.randperm(len(table), generator=generator(1797))]
    return table[:, :64].float() / 16, table[:, 64]


def _table() -> numpy.ndarray[tuple[int, int], numpy.dtype[numpy.int64]]:
    """Pixels 0 … 16 and the label of every image, ``[1797, 65]``.

    Importing scikit-learn takes two seconds in every worker, reading its file some milliseconds.
    """
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("the digits come with scikit-learn, which is not installed; run: pip install scikit-learn")
    path = Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    if path.exists():
        return numpy.loadtxt(gzip.open(path, "rt"), delimiter=",", dtype=numpy.int64)
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return numpy.concatenate([pixels, labels[:, None]], axis=1).astype(numpy.int64)
