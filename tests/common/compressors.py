"""Vectors for compressors, and what arrives of them."""

import torch


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def sent(compressor, vector, seed=0):
    return compressor.decompress(compressor.compress(vector, seed))
