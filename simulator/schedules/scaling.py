"""Learning rates and lengths for large batches."""

from __future__ import annotations

from .. import checks


def linear_scaled_lr(batch: int, base_batch: int = 256, base_lr: float = 0.1) -> float:
    """``base_lr · batch / base_batch``: k times the batch, k times the rate (Goyal et al. 2017, arXiv:1706.02677).

    ``batch`` [samples] is the global one. Where it starts from scratch, warm up over the first 5 epochs.

        >>> linear_scaled_lr(8192)
        3.2
    """
    checks.whole("batch", batch, least=1)
    checks.whole("base_batch", base_batch, least=1)
    return checks.number("base_lr", base_lr, above=0) * batch / base_batch


def updates_in(epochs: float, samples: int, batch: int) -> int:
    """How many updates some epochs are: ``epochs · samples / batch``, rounded; at least one.

    >>> updates_in(5, samples=1_281_167, batch=8192)
    782
    """
    checks.whole("samples", samples, least=1)
    return max(1, round(checks.number("epochs", epochs, above=0) * samples / checks.whole("batch", batch, least=1)))
