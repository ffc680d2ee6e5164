"""How noisy a gradient is, and what that says about the size of batches.

A gradient over B samples has the expected squared norm ``‖G‖² + tr(Σ) / B``: the true gradient's, and the noise of B
samples with the covariance Σ each. Two batch sizes tell the two parts apart. All from McCandlish et al. 2018,
arXiv:1812.06162; batches in samples.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import fsum
from typing import TYPE_CHECKING

from . import checks

if TYPE_CHECKING:
    from .run import Run

OWN, AVERAGED = "squared norm, own gradient", "squared norm, averaged gradient"
"""The samples that the layer ``NoiseScale`` notes: of a worker's gradient, and of the mean of all workers'."""


@dataclass(frozen=True)
class GradientNoise:
    """What two squared norms tell: ``signal`` = ‖G‖² and ``noise`` = tr(Σ), both without bias.

    A single estimate scatters, and its signal may be negative: average many, and only then take ``scale``.
    """

    signal: float
    noise: float

    @property
    def scale(self) -> float:
        """B_simple = tr(Σ) / ‖G‖²: the batch at which noise and signal are equal [samples].

        Raises ValueError where the signal is not positive, which happens to estimates of few steps.
        """
        if not self.signal > 0:
            raise ValueError(f"a gradient's squared norm is positive; got signal={self.signal}; average more steps")
        return self.noise / self.signal


def gradient_noise(small: float, large: float, norm_small: float, norm_large: float) -> GradientNoise:
    """Signal and noise from the squared norms of gradients at two batch sizes.

    ``‖G‖² ≈ (B_l n_l − B_s n_s) / (B_l − B_s)``, ``tr(Σ) ≈ (n_s − n_l) / (1/B_s − 1/B_l)``. ``small``, ``large``
    [samples]: B_s and B_l; ``norm_small``, ``norm_large``: *squared* norms n_s and n_l. Under data parallelism they
    come for free: ranks have gradients over their slices, and their average is over the whole batch.

    Raises ValueError unless ``0 < small < large``.

        >>> gradient_noise(64, 256, 4 + 1000 / 64, 4 + 1000 / 256).scale
        250.0
    """
    checks.number("large", large, above=checks.number("small", small, above=0))
    signal = (large * norm_large - small * norm_small) / (large - small)
    return GradientNoise(signal, (norm_small - norm_large) / (1 / small - 1 / large))


def averaged(estimates: Iterable[GradientNoise]) -> GradientNoise:
    """The mean of signals and of noises: both stay without bias, which the mean of their ratios would not.

    Raises ValueError where there are none.

        >>> averaged([GradientNoise(-1.0, 40.0), GradientNoise(5.0, 20.0)]).scale
        15.0
    """
    found = list(estimates)
    if not found:
        raise ValueError("a mean is over at least one estimate; got none; measure at least one step")
    return GradientNoise(sum(one.signal for one in found) / len(found), sum(one.noise for one in found) / len(found))


def noise_of(run: Run) -> list[GradientNoise]:
    """An estimate for each step of a run whose strategy has the layer ``NoiseScale``; they scatter: see ``averaged``.

    The small batch is a worker's slice (the harmonic mean of uneven ones, as expected norms want it), the large one is
    the batch. Raises ValueError where the run has no such samples, or fewer than two workers.
    """
    slices = run.shares
    replicas = len(run.workers) * run.batch / sum(slices)  # along a pipeline several ranks have one slice
    noted = {name: [s for s in run.samples if s.name == name] for name in (OWN, AVERAGED)}
    if not all(noted.values()) or replicas < 2:
        raise ValueError(
            f"the noise of gradients shows where at least two workers average them under NoiseScale; got {run.strategy}"
            f" with {replicas:g} worker(s): try stack(DataParallel(), NoiseScale()) on several ranks"
        )
    small = len(slices) / fsum(1 / size for size in slices)
    norms = {
        name: [fsum(s.value for s in samples if s.step == step) / replicas for step in range(run.steps)]
        for name, samples in noted.items()
    }
    return [gradient_noise(small, run.batch, *pair) for pair in zip(norms[OWN], norms[AVERAGED])]


def critical_batch(fewest_steps: float, fewest_samples: float) -> float:
    """B_crit = E_min / S_min: where half of the gain in steps is had for twice the samples [samples].

    >>> critical_batch(1000, 250_000)
    250.0
    """
    return checks.number("fewest_samples", fewest_samples, above=0) / checks.number(
        "fewest_steps", fewest_steps, above=0
    )


def steps_and_samples(batch: float, critical: float, fewest_steps: float = 1.0) -> tuple[float, float]:
    """What a goal costs with batches of one size: ``S = S_min (1 + B_crit / B)`` steps, ``E = B · S`` samples.

    So ``(S / S_min − 1)(E / E_min − 1) = 1`` with ``E_min = B_crit · S_min``. ``fewest_steps`` is S_min, what
    batches without noise would need.

        >>> steps_and_samples(batch=250, critical=250, fewest_steps=1000)
        (2000.0, 500000.0)
        >>> steps_and_samples(batch=1000, critical=250, fewest_steps=1000)
        (1250.0, 1250000.0)
    """
    checks.number("batch", batch, above=0)
    checks.number("critical", critical, above=0)
    steps = checks.number("fewest_steps", fewest_steps, above=0) * (1 + critical / batch)
    return steps, batch * steps
