"""Closed forms of what compression saves: oracles for tests, formulas for lessons. Sizes in bytes, times in seconds."""

from __future__ import annotations

from ..theory.collectives import all_reduce_bytes
from .base import Compressor


def quantised_bytes(size: int, bits: int) -> float:
    """size·bits/8: numbers of ``bits`` bits each, without their scale.

    >>> [quantised_bytes(25_557_032, bits) / 1e6 for bits in (32, 16, 8, 2, 1)]  # ResNet-50
    [102.228128, 51.114064, 25.557032, 6.389258, 3.194629]
    """
    return size * bits / 8


def sparse_bytes(size: int, fraction: float, value: int = 4, index: int = 4) -> float:
    """fraction·size·(value + index): 1 % of the numbers is 50 times less, not 100 times, because of the indices.

    >>> round(sparse_bytes(25_557_032, 0.01) / 1e6, 3)
    2.045
    """
    return fraction * size * (value + index)


def power_sgd_ratio(rows: int, columns: int, rank: int) -> float:
    """m·n/(r(m + n)): how many times fewer numbers the factors of a matrix hold (Vogels et al. 2019).

    >>> [round(power_sgd_ratio(2048, 4608, rank)) for rank in (1, 2, 4)]
    [1418, 709, 354]
    """
    return rows * columns / (rank * (rows + columns))


def onebit_adam_ratio(warmup: float) -> float:
    """1/(w + (1 - w)/16): volume of 1-bit Adam against 16-bit gradients, w = share of steps before freezing.

    Tang et al. 2021, arXiv:2102.02888.

    >>> round(onebit_adam_ratio(0.15), 2), onebit_adam_ratio(0.2)
    (4.92, 4.0)
    """
    return 1 / (warmup + (1 - warmup) / 16)


def ratio(compressor: Compressor, size: int, width: int = 4) -> float:
    """How many times fewer bytes the payload of ``size`` numbers of ``width`` bytes has.

    >>> from simulator.compression import Sign
    >>> round(ratio(Sign(), 25_557_032), 2)
    32.0
    """
    return size * width / compressor.nbytes(size, width)


def gather_bytes(n: int, payload: float) -> float:
    """(n - 1)·payload: what each of n ranks sends when everybody needs everybody's payload (a ring all-gather)."""
    return (n - 1) * payload


def crossover(ratio: float) -> float:
    """2·ratio: with more ranks than this, gathering payloads sends more than a dense ring all-reduce.

    (n - 1)·size/ratio = 2(n - 1)/n·size at n = 2·ratio; the cause is in Agarwal et al. 2021, arXiv:2103.00543.

    >>> crossover(32), crossover(50)  # signs; the largest 1 %
    (64, 100)
    """
    return 2 * ratio


def exchange_bytes(compressor: Compressor, n: int, size: int, width: int = 4) -> float:
    """What each of n ranks sends for ``size`` numbers: a ring all-reduce of what is linear, else an all-gather.

    >>> from simulator.compression import FP16, TopK
    >>> exchange_bytes(FP16(), 4, 1000), exchange_bytes(TopK(0.01), 4, 1000)
    (3000.0, 240)
    """
    payload = compressor.nbytes(size, width)
    return all_reduce_bytes(n, payload) if compressor.linear else gather_bytes(n, payload)


def pays(encode: float, decode: float, exchange: float, exposed: float) -> bool:
    """Whether compressing is faster: its seconds against those of the dense exchange that are not hidden.

    What overlaps with the backward pass costs nothing, so a saving there is none.

    >>> pays(encode=0.01, decode=0.01, exchange=0.02, exposed=0.03)
    False
    """
    return encode + decode + exchange < exposed
