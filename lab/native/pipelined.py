"""Pipelines: PyTorch's own schedules (torch.distributed.pipelining), alone and with replicas of every stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed import pipelining
from torch.distributed.device_mesh import DeviceMesh

from simulator.holdings import Piece
from simulator.strategies.buckets import BUCKET
from simulator.strategies.schedules import SCHEDULES, places
from simulator.strategies.schedules.placing import number

from .choosing import PIPELINES
from .replicated import wrapped
from .training import Chain, Training


@dataclass(frozen=True)
class Stage:
    """A chunk of the model on this rank: its blocks, and PyTorch's stage that runs them."""

    chain: Chain
    first: int
    runs: Any


def pipeline(
    training: Training, schedule: str, microbatches: int, chunks: int | None = None, bucket_bytes: float = BUCKET
) -> list[Piece]:
    """Train by one of ``PIPELINES``; with an axis "data", every stage is replicated by DistributedDataParallel.

    ValueError when the slices of the batch do not split evenly: PyTorch's stages exchange tensors of one shape.
    """
    _check_even(training, microbatches)
    kind, plan = getattr(pipelining, PIPELINES[schedule]), SCHEDULES[schedule]
    mesh = training.mesh()
    stages = _stages(training, mesh, plan.chunks if chunks is None else chunks, plan.placement, bucket_bytes)
    several = issubclass(kind, pipelining.schedules.PipelineScheduleMulti)
    runs = kind(
        [stage.runs for stage in stages] if several else stages[0].runs, microbatches,
        loss_fn=_noted_loss(training, stages[-1].chain, microbatches), scale_grads=True,
    )  # fmt: skip
    optimizer = training.optimizer(named for stage in stages for named in stage.chain.named_parameters())
    _try(training, stages, runs)
    optimizer.zero_grad()
    for stage in stages:
        _time(training, stage)
    with training.log.recording():
        for _ in training.log.steps():
            _step(training, stages, runs)
            with training.log.phase("Update all"):
                training.rule.step(optimizer)
                optimizer.zero_grad()
    return training.pieces(named for stage in stages for named in stage.chain.named_parameters())


def _stages(training: Training, mesh: DeviceMesh, chunks: int, placement: str, bucket_bytes: float) -> list[Stage]:
    """This rank's stages, in ascending order. Chunks go round the ranks, or there and back."""
    group = mesh["pipeline"].get_group()
    at, ranks = group.rank(), group.size()
    mine = places(at, ranks, chunks, placement, training.me.model.asides)
    numbered = [(number(at, chunk, ranks, placement), place.blocks) for chunk, place in enumerate(mine)]
    return [_stage(training, mesh, blocks, stage, ranks * chunks, bucket_bytes) for stage, blocks in numbered]


def _stage(
    training: Training, mesh: DeviceMesh, blocks: Sequence[int], number: int, count: int, bucket_bytes: float
) -> Stage:
    group = mesh["pipeline"].get_group()
    chain = training.chain(blocks[0], blocks[-1] + 1)
    model: torch.nn.Module = chain
    if "data" in training.me.grid and any(parameter.requires_grad for parameter in chain.parameters()):
        model = wrapped(training, chain, mesh["data"].get_group(), bucket_bytes)
    device = torch.device(training.place.device)
    return Stage(chain, blocks[0], pipelining.PipelineStage(model, number, count, device, group=group))


def _step(training: Training, stages: list[Stage], runs: Any) -> None:
    """One batch through the pipeline; the first stage gets the inputs, the last the targets."""
    first = any(stage.runs.is_first for stage in stages)
    last = any(stage.runs.is_last for stage in stages)
    given: list[torch.Tensor] = []
    more: dict[str, torch.Tensor] = {}
    if first or last:
        with training.log.phase("Load all"):
            inputs, targets = training.batch()
        given, more = [inputs] if first else [], {"target": targets} if last else {}
    runs.step(*given, **more, return_outputs=False)


def _try(training: Training, stages: list[Stage], runs: Any) -> None:
    """One step whose gradients are dropped: at the first, stages tell each other shapes, which is not training."""
    _step(training, stages, runs)


def _noted_loss(training: Training, chain: Chain, microbatches: int) -> Callable[..., torch.Tensor]:
    def loss_of(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with training.log.phase(f"Loss mb{chain.microbatch}"):
            loss = training.loss(output, targets, chain.microbatch)
            training.log.loss(loss.item() / microbatches)
            return loss * training.weight

    return loss_of


def _time(training: Training, stage: Stage) -> None:
    """Note every forward and backward of a stage, under the number of its first block."""

    def timed(name: str, label: str) -> None:
        plain = getattr(stage.runs, name)

        def run(chunk: int, *arguments: Any, **more: Any) -> Any:
            stage.chain.microbatch = chunk
            # a backward that leaves the weights for later is the half for the inputs
            half = "Input" if more.get("full_backward") is False else ""
            with training.log.phase(f"{label}{half} {stage.first} mb{chunk}"):
                return plain(chunk, *arguments, **more)

        setattr(stage.runs, name, run)

    timed("forward_one_chunk", "Forward")
    timed("backward_one_chunk", "Backward")
    timed("backward_weight_one_chunk", "BackwardWeight")


def _check_even(training: Training, microbatches: int) -> None:
    start, end = training.me.slice
    if (end - start) % microbatches:
        raise ValueError(
            f"PyTorch's pipelining takes equal microbatches; got a slice of {end - start} samples for"
            f" microbatches={microbatches}: use a batch that they divide, or engine='program'"
        )
