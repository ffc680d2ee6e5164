"""The engine ``ray``: Ray Train's TorchTrainer, which starts the ranks and prepares the model for data parallelism.

``DataParallel`` becomes PyTorch's DistributedDataParallel in Ray's workers, over gloo. Ray is started on this machine,
bound to the loopback address, and ends with the run.
"""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .preparing import Extra, ranks_once
from .relay import Folder, temporary

if TYPE_CHECKING:
    from simulator.problem import Problem
    from simulator.run import Run
    from simulator.stack import Stack

    from ..observed import Observed
    from ..place import Place
    from ..running import Job

EXTRA = Extra("ray", "ray", "ray", "ray", {"DataParallel": ("bucket_bytes", "overlap", "replicas")})
STORE_BYTES = 80 * 2**20
"""Ray's store for objects, about the smallest it takes: nothing passes through it here."""

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # a cluster of this machine alone, bound to the loopback address
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Ray's own settings."""


def execute(job: Job, timeout: float, progress: bool) -> Run:
    """Train with Ray Train. ValueError for another strategy than ``DataParallel``."""
    EXTRA.accept(job)
    with temporary(job.ranks) as folder:
        (found,) = ranks_once(partial(drive, folder), job, 1, timeout, progress)
    return job.run(found, EXTRA.note("Ray Train's TorchTrainer, DistributedDataParallel over gloo"))


def drive(folder: Folder, place: Place, stack: Stack, problem: Problem, steps: int, seed: int) -> list[Observed]:
    """Start Ray, let its workers train, end it."""
    folder.fill(train, stack, problem, steps, seed)
    place.board.note(0, "starting Ray", waiting=True)
    _start(folder.ranks, str(folder.path / "ray"))
    try:
        with folder.watched(place):
            _fit(folder)
    finally:
        _end()
    return folder.results()


def _start(ranks: int, folder: str) -> None:
    """Start Ray on this machine alone."""
    os.environ.update(SETTINGS)
    import ray

    try:
        ray.init(
            num_cpus=ranks + 1, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
            object_store_memory=STORE_BYTES, _node_ip_address="127.0.0.1", _temp_dir=folder,
        )  # fmt: skip
    except Exception as error:  # Ray raises nothing more special
        raise RuntimeError(
            f"Ray did not start: {error} It waits 30 s, which cannot be changed, and that is too short on a busy"
            " machine: try again when it is idle"
        ) from error


def _end() -> None:
    import ray

    ray.shutdown()


def _fit(folder: Folder) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    trainer = TorchTrainer(
        _in_worker,
        train_loop_config={"folder": json.dumps([str(folder.path), folder.ranks])},
        scaling_config=ScalingConfig(num_workers=folder.ranks, use_gpu=False),
        torch_config=TorchConfig(backend="gloo"),
        run_config=RunConfig(name="run", storage_path=str(folder.path / "storage")),
    )
    try:
        trainer.fit()
    except Exception as error:  # Ray wraps it in its own words; what the rank left says more
        folder.raise_error(str(error))


def _in_worker(config: dict[str, str]) -> None:
    """One rank, in a worker of Ray's."""
    import torch
    from ray.train import get_context

    torch.set_num_threads(1)
    path, ranks = json.loads(config["folder"])
    Folder(Path(path), ranks).work(get_context().get_world_rank())


def train(place: Place, stack: Stack, problem: Problem, steps: int, seed: int) -> Observed:
    """The native engine's loop around the model that Ray Train has prepared."""
    from ray.train.torch import prepare_model

    from simulator.strategies import DataParallel

    from ..native.replicated import megabytes
    from ..native.training import Training

    (layer,) = stack.layers
    assert isinstance(layer, DataParallel)
    training = Training.of(place, stack, problem, steps, seed)
    wanted = {"bucket_cap_mb": megabytes(layer.bucket_bytes), "broadcast_buffers": False}
    model = prepare_model(training.chain(), parallel_strategy_kwargs=wanted)
    optimizer = training.optimizer(model.named_parameters())
    with training.log.recording():
        training.train(model, optimizer)
    return training.observed(training.pieces(model.named_parameters()))
