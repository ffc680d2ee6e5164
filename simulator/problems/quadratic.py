"""A quadratic bowl with noisy gradients: the problem whose answers are known in closed form."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from ..problem import Problem
from ..rules import SGD
from .draws import generator
from .knobs import require_counts, require_numbers


def quadratic(
    spectrum: Sequence[float] = (1.0, 0.1),
    noise: float = 1.0,
    start: float = 1.0,
    batch: int = 8,
    lr: float = 0.1,
    blocks: int | None = None,
    dtype: str = "float32",
) -> Problem:
    """Minimise ``½ Σ λ_i x_i²`` from ``x_i = start``, with gradients ``λ_i x_i + noise · mean ξ_i``.

    ξ is standard normal, drawn afresh for every sample, so a worker with b samples sees noise ``noise / √b``. The
    losses of a run are exact at the parameters that a worker has; only its gradients are noisy.

    ``spectrum``: the λ, as many as dimensions. ``blocks``: over how many blocks the dimensions are spread, in order; 2
    unless there is but one dimension.

    Raises ValueError for a spectrum that is empty or no list, numbers that are not finite, or more blocks than there
    are dimensions.

    Example: ``sim.problem("quadratic", spectrum=(1.0,), noise=0.0, lr=0.5)``
    """
    try:
        spectrum = tuple(float(value) for value in spectrum)
    except (TypeError, ValueError):
        raise ValueError(f"quadratic: spectrum is a list of numbers; got spectrum={spectrum!r}") from None
    require_counts("quadratic", dimensions=len(spectrum), batch=batch)
    require_numbers("quadratic", noise=noise, start=start, **{f"spectrum[{i}]": v for i, v in enumerate(spectrum)})
    parts = min(len(spectrum), 2) if blocks is None else blocks
    require_counts("quadratic", blocks=parts)
    if parts > len(spectrum):
        raise ValueError(f"quadratic: a block holds at least one of {len(spectrum)} dimensions; got blocks={parts}")
    return Problem(
        blocks=partial(_bowls, spectrum, start, parts),
        loss=_mean,
        data=Noise(len(spectrum), float(noise), batch),
        evaluation=_evaluation,
        rule=SGD(lr),
        dtype=dtype,
        name="quadratic",
    )


class Bowl(torch.nn.Module):
    """Some dimensions. What enters and leaves, per sample: the loss so far, then the noise not yet used.

    The noise multiplies ``x − x.detach()``: nothing is added to the loss, but noise to its gradient.
    """

    spectrum: torch.Tensor

    def __init__(self, spectrum: Sequence[float], start: float):
        super().__init__()
        # made in double precision: 0.1 rounded to single would stay wrong in float64
        self.register_buffer("spectrum", torch.tensor(spectrum, dtype=torch.float64))
        self.x = torch.nn.Parameter(torch.full((len(spectrum),), start, dtype=torch.float64))

    def forward(self, act: torch.Tensor) -> torch.Tensor:
        """From ``[samples, 1 + d]`` to ``[samples, 1 + d − own dimensions]``."""
        own = len(self.x)
        so_far, noise, rest = act[:, :1], act[:, 1 : 1 + own], act[:, 1 + own :]
        noisy_zero = noise @ (self.x - self.x.detach())
        return torch.cat([so_far + self.value() + noisy_zero[:, None], rest], dim=1)

    def value(self) -> torch.Tensor:
        """``½ Σ λ_i x_i²`` over these dimensions."""
        return 0.5 * (self.spectrum * self.x**2).sum()


@dataclass(frozen=True)
class Noise:
    """The data: ``[batch, 1 + d]``, a zero and then ``noise · ξ``; the targets are unused."""

    dimensions: int
    noise: float
    batch: int

    def __call__(self, seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The batch of a step."""
        xi = torch.randn(self.batch, self.dimensions, generator=generator(seed, step), dtype=torch.float64)
        return torch.cat([torch.zeros(self.batch, 1), self.noise * xi], dim=1), torch.zeros(self.batch)


def _bowls(spectrum: Sequence[float], start: float, parts: int) -> list[torch.nn.Module]:
    cuts = [i * len(spectrum) // parts for i in range(parts + 1)]
    return [Bowl(spectrum[a:b], start) for a, b in itertools.pairwise(cuts)]


def _mean(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return output.mean()


def _evaluation(blocks: Sequence[torch.nn.Module]) -> dict[str, float]:
    return {"loss": sum(block.value().item() for block in blocks if isinstance(block, Bowl))}
