"""What can be learnt from a problem by running a sample or two through its blocks: shapes, FLOPs, mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import isclose, prod
from typing import TYPE_CHECKING

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..model import Block, Flops, Model
from .draws import seeded

if TYPE_CHECKING:
    from ..problem import Problem

SAMPLES = 2
"""How many samples are tried; blocks that normalise over the batch cannot do with one."""

Shapes = tuple[tuple[tuple[int, ...], torch.dtype], ...]


def shapes(problem: Problem) -> Shapes:
    """Shape per sample and dtype of ``Act(0)`` … ``Act(blocks)``. Raises ValueError where a block gives no tensor."""
    return tuple((tuple(act.shape[1:]), act.dtype) for act, _ in _walk(problem))


def model(problem: Problem) -> Model:
    """Parameters, bytes and counted FLOPs of every block.

    FLOPs are those of matrix products and convolutions (a multiply and an add are two); where there are none, one
    per number that comes out. Backward is taken as twice forward, as it is for a product of two matrices.
    """
    walk = _walk(problem)
    blocks = [
        Block(
            parameters=sum(p.numel() for p in block.parameters()),
            forward=Flops(flops),
            backward=Flops(2 * flops),
            input_bytes=prod(entered.shape[1:]) * entered.element_size(),
        )
        for block, (entered, _), (_, flops) in zip(problem.build(0), walk, walk[1:], strict=False)
    ]
    return Model(
        name=problem.name,
        blocks=tuple(blocks),
        batch=problem.batch,
        parameter_bytes=problem.torch_dtype.itemsize,
        loss=Flops(float(prod(walk[-1][0].shape[1:]))),
    )


def check(problem: Problem) -> None:
    """Raise ValueError when blocks, loss or data break what ``Problem`` asks of them."""
    inputs, targets = problem.batch_of(0, 0)
    if not all(map(torch.equal, (inputs, targets), problem.batch_of(0, 0))):
        raise ValueError(
            "data(seed, step) gives the same batch each time; two calls of data(0, 0) differed; draw with a"
            " generator seeded from seed and step"
        )
    problem.shapes()
    with seeded(0):
        output, targets = _forward(problem, inputs[:SAMPLES]), targets[:SAMPLES]
        loss = problem.loss(output, targets)
        _check_scalar(loss)
        _check_mean(problem, float(loss.detach()), output.detach(), targets)


def _walk(problem: Problem) -> list[tuple[torch.Tensor, float]]:
    """What enters each block and what comes out last, each with the FLOPs per sample of the block it came from."""
    act = problem.batch_of(0, 0)[0][:SAMPLES]
    steps = [(act, 0.0)]
    for number, block in enumerate(problem.build(0)):
        block.eval()
        with torch.no_grad(), seeded(0), _counter() as counted:
            entered, act = act, block(act)
        _check_act(number, entered, act)
        steps.append((act, max(counted.get_total_flops(), act.numel()) / len(act)))
    return steps


@contextmanager
def _counter() -> Iterator[FlopCounterMode]:
    # fused attention on processors is unknown to the counter; written out it is matrix products
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        yield counted


def _check_act(number: int, entered: torch.Tensor, act: object) -> None:
    if not isinstance(act, torch.Tensor):
        raise ValueError(f"one tensor passes from block to block; block {number} returned a {type(act).__name__}")
    if act.dim() == 0 or len(act) != len(entered):
        raise ValueError(
            f"blocks keep the samples along the first dimension; block {number} made shape {tuple(act.shape)} of"
            f" {tuple(entered.shape)}"
        )
    if not act.is_floating_point():
        raise ValueError(f"blocks return floating-point numbers; block {number} returned {act.dtype}")


def _forward(problem: Problem, act: torch.Tensor) -> torch.Tensor:
    """The blocks in training, with gradients. Raises ValueError when one changes a buffer of its own."""
    for number, block in enumerate(problem.build(0)):
        before = {name: buffer.clone() for name, buffer in block.named_buffers()}
        act = block(act)
        for name, buffer in block.named_buffers():
            if not torch.equal(before[name], buffer):
                raise ValueError(
                    f"training changes parameters only, for nothing else travels between ranks; block {number}"
                    f" changed its buffer {name!r}; use LayerNorm or GroupNorm, or track_running_stats=False"
                )
    return act


def _check_scalar(loss: object) -> None:
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else f"a {type(loss).__name__}"
        raise ValueError(f"loss(output, targets) is a tensor with one element; got {got}; take the mean over samples")
    if not loss.requires_grad:
        raise ValueError("the loss depends on the parameters; this one has no gradient; look for .detach() or .item()")


def _check_mean(problem: Problem, both: float, output: torch.Tensor, targets: torch.Tensor) -> None:
    """A sum over samples would silently multiply the gradients by the size of a worker's slice."""
    single = [float(problem.loss(output[i : i + 1], targets[i : i + 1])) for i in range(len(output))]
    mean = sum(single) / len(single)
    if not isclose(both, mean, rel_tol=1e-3, abs_tol=1e-6):
        raise ValueError(
            f"the loss is the mean over samples; on {len(single)} samples it is {both:.6g}, while the mean of the"
            f" {len(single)} taken singly is {mean:.6g}; use reduction='mean'"
        )
