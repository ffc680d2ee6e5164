"""Utilization: the share of what the devices promise that training used."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .timing import samples_per_step, steady_step

if TYPE_CHECKING:
    from ..run import Run


def mfu(run: Run) -> float:
    """Model FLOPs utilization: the FLOP that the model needs, over what the workers' peaks allow in that time.

        MFU = samples of a step · (model FLOP per sample) / (time of a step · Σ peak)

    The step is a steady one (``steady_step``). The FLOP are those of a forward pass, times 3 with the backward pass;
    recomputation does not count, and attention counts whole even where half of it is masked. The peaks are those of
    the model's dtype; servers hold no share of the batch and their devices do not count. Infinite when all was free.

    Raises ValueError where the FLOP of the model or the peaks of the devices are not known. Source: Chowdhery et al.
    2022 (arXiv:2204.02311), appendix B.

    >>> from simulator import Block, Device, Flops, Model, Single, cluster, simulate
    >>> model = Model("one", (Block(forward=Flops(1e12), backward=Flops(2e12)),), batch=4)
    >>> chip = Device("a chip", flops=60e12, peaks={"fp32": 100e12})
    >>> round(mfu(simulate(Single(), model, cluster("ideal", ranks=1, device=chip))), 6)
    0.6
    """
    return _used(run, run.facts.model_flops)


def hfu(run: Run) -> float:
    """Hardware FLOPs utilization: as ``mfu``, but what is computed again in backward passes counts too.

    With full recomputation it is 8/6 of the MFU, attention and the vocabulary aside. Attention tile by tile computes
    its scores again too. Raises ValueError as ``mfu``.
    Source: Korthikanti et al. 2022 (arXiv:2205.05198), section 6.
    """
    return _used(run, run.facts.hardware_flops)


def unknown(run: Run) -> str:
    """Why a run has no MFU; empty where it has one."""
    if not run.facts.model_flops:
        return (
            f"utilization counts FLOP, which are not known of {run.workload}: take a model made of operations or Flops,"
            " such as transformer(…), Model.from_torch(…) or model('gpt3-175b')"
        )
    return run.facts.unknown_peak


def _used(run: Run, flops: float) -> float:
    if reason := unknown(run):
        raise ValueError(reason)
    seconds, workers = steady_step(run), set(run.workers)
    dtype, fleet = run.facts.dtype or "fp32", run.facts.fleet
    peak = math.fsum(device.peak(dtype) * len(workers.intersection(ranks)) for device, ranks in fleet)
    return samples_per_step(run) * flops / (seconds * peak) if seconds else math.inf
