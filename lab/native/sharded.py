"""Fully sharded data parallelism: PyTorch's FSDP2."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from simulator.holdings import Piece

from .training import Chain, Training


def fully_sharded(training: Training, stage: int = 3) -> list[Piece]:
    """FSDP2 (Zhao et al. 2023, arXiv:2304.11277) per block.

    Stage 3 frees a block's parameters after its forward and gathers them again for its backward, 3Ψ; stage 2 keeps them
    until then, 2Ψ. Ψ includes the rows that FSDP2 adds so that every rank has as many.
    """
    with quiet():
        model = shard(training.chain(), training.mesh()["data"], stage)
        optimizer = training.optimizer(model.named_parameters())
        with training.log.recording():
            training.train(model, optimizer)
        return training.pieces((name, full(parameter)) for name, parameter in model.named_parameters())


def shard(model: Chain, mesh: DeviceMesh, stage: int) -> Chain:
    """The same model, its blocks sharded over a mesh of one axis."""
    for block in model.blocks.values():
        if any(True for _ in block.parameters()):
            fully_shard(block, mesh=mesh, reshard_after_forward=stage == 3)
    fully_shard(model, mesh=mesh, reshard_after_forward=stage == 3)
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Without two warnings that users of this package can do nothing about.

    FSDP2 warns of views, which a Linear returns, and DTensor of gathering along two axes in two steps.
    """
    log = logging.getLogger("torch.distributed.tensor._redistribute")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*returned a view tensor", UserWarning)
            yield
    finally:
        log.setLevel(level)


def full(parameter: nn.Parameter) -> torch.Tensor:
    """The whole tensor, gathered from all ranks where it is in parts."""
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter  # type: ignore[no-any-return]
