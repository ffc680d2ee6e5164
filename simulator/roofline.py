"""How fast a device is: the share of its peak that a matrix product reaches, and of its bandwidth that the rest does.

A product of large matrices reaches ``LARGE`` of the device's best; a short inner dimension does not fill the pipeline
of a tile, and few outputs do not fill the device, which makes the product of two factors:

    share(m, n, k) = LARGE · best · k / (k + SHORT) · outputs / (outputs + few),    outputs = m·n·count

The faster a device, the more outputs fill it: few = FEW · best, best in FLOP/s. On a V100 of 88.5 TFLOP/s the same
source has half of that speed at 0.4 million outputs, on an A100 of 271 at 1.3 million.

The constants hold for all devices. They were fitted by hand to what Anthony et al. 2024 (arXiv:2401.14489, data in
EleutherAI/cookbook, ``sizing/results``) measured on one A100: products of single matrices (up to 262 TFLOP/s of 312),
products inside of whole transformer layers, which are some 5 % slower than the same ones alone (240 TFLOP/s), and the
rest of these layers, whose forward passes come out within 2 %. No training run was used.
"""

from __future__ import annotations

from .clusters.device import Device

LARGE = 0.92
"""The share of a device's best product that large ones reach inside of a layer."""
BEST = 0.85
"""A device's best product, as a share of its peak, where nobody measured it."""
SHORT = 250.0
"""The inner dimension at which a product is half as fast."""
FEW = 1.3e6 / 271.2e12
"""The number of outputs at which it is, for each FLOP/s of the device's best product."""
FUSED = 0.8
"""Of LARGE, in attention that is computed tile by tile (Dao 2023, arXiv:2307.08691: up to 0.73 of an A100's peak)."""
OPERANDS = 0.7
"""The share of the bandwidth at which a product reads and writes its matrices, where these are the bottleneck."""
STREAMS = 0.85
"""The share at which what computes little reads and writes."""


def speed(device: Device, dtype: str, outputs: float, inner: float, fused: bool | float = False) -> float:
    """What a matrix product reaches [FLOP/s]. A device that has no peaks always reaches its ``flops``.

    - ``outputs``: how many numbers it gives; ``inner``: how many products are added up for each.
    - ``fused``: it is a part of attention that is computed tile by tile; a number: at this share of the peak.

    >>> chip = Device(peaks={"bf16": 312e12}, efficiency=0.87)
    >>> [round(speed(chip, "bf16", n * n, n) / 1e12) for n in (512, 2048, 8192)]
    [28, 170, 238]
    """
    if not device.peaks:
        return device.flops
    if fused and fused is not True:
        return fused * device.peak(dtype)
    reached = device.reached(dtype)
    best = device.peak(dtype) * (BEST if reached is None else reached)
    if fused:
        return LARGE * best * FUSED
    return LARGE * best * inner / (inner + SHORT) * outputs / (outputs + FEW * best)


def moving(device: Device, size: float, share: float) -> float:
    """The time to read and write so many bytes [s]; none where the device's bandwidth is not known."""
    return size / (device.bandwidth * share) if device.bandwidth else 0.0
