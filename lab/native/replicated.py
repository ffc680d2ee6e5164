"""Whole models on every rank: the plain loop, DistributedDataParallel, its hooks, and ZeroRedundancyOptimizer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.post_localSGD_hook import PostLocalSGDState, post_localSGD_hook
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.distributed.algorithms.model_averaging.utils import average_parameters
from torch.distributed.optim import PostLocalSGDOptimizer, ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from simulator.holdings import Piece
from simulator.strategies.buckets import BUCKET

from .hooks import HOOKS
from .training import Training


def single(training: Training) -> list[Piece]:
    """The plain loop on one rank."""
    model = training.chain()
    optimizer = training.optimizer(model.named_parameters())
    with training.log.recording():
        training.train(model, optimizer)
    return training.pieces(model.named_parameters())


def data_parallel(
    training: Training, bucket_bytes: float = BUCKET, hook: str = "", options: Mapping[str, Any] | None = None
) -> list[Piece]:
    """DistributedDataParallel (Li et al. 2020, arXiv:2006.15704), with one of its ``HOOKS`` where one is named."""
    model = replicas(training, bucket_bytes)
    if hook:
        model.register_comm_hook(*HOOKS[hook](**(options or {})).of(model))
    optimizer = training.optimizer(model.named_parameters())
    with training.log.recording():
        training.train(model, optimizer)
    return training.pieces(model.named_parameters())


def post_local(training: Training, period: int, start: int = 0, bucket_bytes: float = BUCKET) -> list[Piece]:
    """Post-local SGD (Lin et al. 2020, arXiv:1808.07217): gradients are averaged before step ``start``.

    From then on every rank goes its own way, and parameters are averaged after every ``period`` steps and after the
    last. PyTorch averages at step ``warmup_steps`` first, so that this is the last step of the first round.
    """
    model = replicas(training, bucket_bytes)
    alone = _alone(training.place.rank, training.place.ranks)
    state = PostLocalSGDState(None, alone, start, post_local_gradient_allreduce=False)
    model.register_comm_hook(state, post_localSGD_hook)  # type: ignore[arg-type]
    averager = _averager(period, start + period - 1)
    optimizer = PostLocalSGDOptimizer(training.optimizer(model.named_parameters()), averager)
    with training.log.recording():
        training.train(model, optimizer)
        steps = training.log.total - start
        if steps > 0 and steps % period:
            learn = [parameter for parameter in model.parameters() if parameter.requires_grad]
            average_parameters(iter(learn), averager.process_group)
    return training.pieces(model.named_parameters())


def _averager(period: int, first: int) -> PeriodicModelAverager:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # with period 1 it recommends plain data parallelism
        return PeriodicModelAverager(period=period, warmup_steps=first)


def sharded_optimizer(training: Training, bucket_bytes: float = BUCKET) -> list[Piece]:
    """ZeRO stage 1 (Rajbhandari et al. 2020, arXiv:1910.02054) as PyTorch has it: each rank keeps some optimizer state.

    Gradients are averaged whole by DistributedDataParallel, and every rank broadcasts the parameters it has updated:
    3Ψ, where reduce-scatter and all-gather would move 2Ψ.
    """
    model = replicas(training, bucket_bytes)
    learn = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = ZeroRedundancyOptimizer(learn, _maker(training, model))  # type: ignore[arg-type]
    with training.log.recording():
        training.train(model, optimizer)
    return training.pieces(model.named_parameters())


def replicas(training: Training, bucket_bytes: float = BUCKET) -> DistributedDataParallel:
    """The whole model on every rank."""
    return wrapped(training, training.chain(), dist.group.WORLD, bucket_bytes)


def wrapped(training: Training, model: torch.nn.Module, group: Any, bucket_bytes: float) -> DistributedDataParallel:
    """A model whose gradients are averaged over a group."""
    devices = None if training.place.device == "cpu" else [training.place.device]
    return DistributedDataParallel(
        model, process_group=group, bucket_cap_mb=megabytes(bucket_bytes), device_ids=devices
    )


def megabytes(bucket_bytes: float) -> float:
    """As DistributedDataParallel wants it: a whole number of bytes, at least one.

    >>> megabytes(2**20)
    1.0
    """
    return (2**40 if bucket_bytes == inf else max(1.0, bucket_bytes)) / 2**20


def _maker(training: Training, model: torch.nn.Module) -> Callable[..., torch.optim.Optimizer]:
    """Stands where ZeroRedundancyOptimizer expects the optimizer's class; makes one for the parameters of this rank."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def make(groups: Iterable[dict[str, Any]], **defaults: Any) -> torch.optim.Optimizer:
        mine = [parameter for group in groups for parameter in group["params"]]
        return training.optimizer((names[id(parameter)], parameter) for parameter in mine)

    return make


_alone_groups: dict[int, Any] = {}


def _alone(rank: int, ranks: int) -> Any:
    """A process group of this rank only; made once per process, for groups are never given back."""
    if ranks not in _alone_groups:
        _alone_groups[ranks] = [dist.new_group([other]) for other in range(ranks)][rank]
    return _alone_groups[ranks]
