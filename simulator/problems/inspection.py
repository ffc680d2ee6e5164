"""What can be learnt from a problem by running a sample or two through its blocks: shapes and FLOPs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..cutting import Cut
from ..model import Block, Model, Part
from ..work import Flops
from .blocks import named_buffers, own_parameters, ties
from .draws import seeded
from .parts import in_parts, parts_of

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
    walk, modules = _walk(problem), problem.build(0)
    blocks = [
        Block(
            parameters=sum(parameter.numel() for _, parameter in own),
            forward=Flops(flops),
            backward=Flops(2 * flops),
            input_bytes=prod(entered.shape[1:]) * entered.element_size(),
            parts=_parts(block, entered) if in_parts(block) else (),
            shapes=tuple(tuple(parameter.shape) for _, parameter in own),
            ties=tuple(tied),
            buffers=sum(buffer.numel() for _, buffer in named_buffers(block)),
        )
        for block, own, tied, (entered, _), (_, flops) in zip(
            modules, own_parameters(modules), ties(modules), walk, walk[1:], strict=False
        )
    ]
    return Model(
        name=problem.name,
        blocks=tuple(blocks),
        batch=problem.batch,
        parameter_bytes=problem.torch_dtype.itemsize,
        loss=Flops(float(prod(walk[-1][0].shape[1:]))),
        tokens=_tokens(*problem.batch_of(0, 0)),
    )


def _tokens(inputs: torch.Tensor, targets: torch.Tensor) -> int | None:
    """Of a sample: numbers that each have a target of their own, as in a text; else nobody knows."""
    words = inputs.dim() == 2 and not (inputs.is_floating_point() or targets.is_floating_point())
    return inputs.shape[1] if words and inputs.shape == targets.shape else None


def _parts(block: torch.nn.Module, entered: torch.Tensor) -> tuple[Part, ...]:
    """The parts of a block, with what one sample costs in each."""
    acts, found = [entered], []
    for module in parts_of(block.eval(), Cut()):
        with torch.no_grad(), seeded(0), _counter() as counted:
            acts.append(module(acts[-1], None if module.adds is None else acts[module.adds]))
        leaving = acts[-1]
        flops = max(counted.get_total_flops(), leaving.numel()) / len(entered)
        found.append(
            Part(
                forward=Flops(flops),
                backward=Flops(2 * flops),
                output_bytes=leaving.nbytes / len(entered),
                parameters=0 if module.units else sum(p.numel() for p in module.parameters()),
                units=module.units,
                adds=module.adds,
                **{flag: getattr(module, flag) for flag in ("shares", "sums", "mixes", "causal", "routes", "experts")},
            )
        )
    return tuple(found)


def _walk(problem: Problem) -> list[tuple[torch.Tensor, float]]:
    """What enters each block and what comes out last, each with the FLOPs per sample of the block it came from."""
    act = problem.batch_of(0, 0)[0][:SAMPLES]
    steps = [(act, 0.0)]
    for number, block in enumerate(problem.build(0)):
        block.eval()
        with torch.no_grad(), seeded(0), _counter() as counted:
            entered, act = act, applied(number, block, act)
        _check_act(number, entered, act)
        steps.append((act, max(counted.get_total_flops(), act.numel()) / len(act)))
    return steps


@contextmanager
def _counter() -> Iterator[FlopCounterMode]:
    # fused attention on processors is unknown to the counter; written out it is matrix products
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        yield counted


def applied(number: int, block: torch.nn.Module, act: torch.Tensor) -> torch.Tensor:
    """What a block makes of what enters it. Raises ValueError, with what torch says, where it cannot."""
    try:
        out: torch.Tensor = block(act)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"block {number} cannot take what enters it, of shape {tuple(act.shape)} and {act.dtype}:"
            f" {type(error).__name__}: {error}"
        ) from error
    return out


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
