"""The engine ``deepspeed``: DeepSpeed's engine on CPUs over gloo, ZeRO stage 0 (``DataParallel``) or 1 (``Sharded``).

Stage 1 keeps each rank's part of the optimizer's state only (Rajbhandari et al. 2020, arXiv:1910.02054). Stages 2 and 3
run on CPUs only at times, so they are refused.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from simulator.rules import SGD, Adam, Momentum
from simulator.workload import rule_of

from .preparing import Extra, ranks_once

if TYPE_CHECKING:
    from torch import nn

    from simulator.problem import Problem
    from simulator.run import Run
    from simulator.stack import Stack

    from ..native.training import Training
    from ..observed import Observed
    from ..place import Place
    from ..running import Job

EXTRA = Extra(
    "deepspeed", "deepspeed", "deepspeed", "deepspeed",
    {"DataParallel": ("bucket_bytes", "overlap", "replicas"), "Sharded": ("stage",)},
)  # fmt: skip

RULES = (SGD, Momentum, Adam)


def execute(job: Job, timeout: float, progress: bool) -> Run:
    """Train with DeepSpeed. ValueError for other strategies, stages, rules and dtypes than it has."""
    stage = stage_of(EXTRA.fit(job.stack))
    if type(rule_of(job.stack, job.problem)) not in RULES:
        known = " or ".join(f"rules.{rule.__name__}" for rule in RULES)
        raise ValueError(f"engine='deepspeed' updates with {known}; got {rule_of(job.stack, job.problem)}")
    if job.problem.dtype != "float32":
        raise ValueError(f"DeepSpeed averages no float64; got dtype={job.problem.dtype!r}: give the problem float32")
    EXTRA.accept(job)
    found = ranks_once(partial(train, stage), job, job.ranks, timeout, progress)
    return job.run(found, EXTRA.note(f"ZeRO stage {stage} over gloo"))


def stage_of(part: Any) -> int:
    """The ZeRO stage of a strategy's one part."""
    stage: int = getattr(part, "stage", 0)
    if stage > 1:
        raise ValueError(f"engine='deepspeed' trains with ZeRO stages 0 and 1 on CPUs; got stage={stage}")
    return stage


def train(stage: int, place: Place, stack: Stack, problem: Problem, steps: int, seed: int) -> Observed:
    """One rank's training."""
    from ..native.training import Training

    place.board.note(0, "loading DeepSpeed")
    training = Training.of(replace(place, device="cpu"), stack, problem, steps, seed)
    chain = training.chain()
    engine = _engine(chain, training, stage)
    with training.log.recording():
        _loop(engine, training)
    return training.observed(training.pieces(chain.named_parameters()))


def _engine(chain: nn.Module, training: Training, stage: int) -> Any:
    place = training.place
    os.environ.update(DS_ACCELERATOR="cpu", LOCAL_RANK=str(place.rank), RANK=str(place.rank))
    os.environ.update(WORLD_SIZE=str(place.ranks), MASTER_ADDR="127.0.0.1", MASTER_PORT="0")  # the group is there
    import deepspeed

    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")  # DeepSpeed calls torch by old names
    deepspeed.logger.setLevel("ERROR")
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # not used in training, and compiled when it loads
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    settings = {
        "train_micro_batch_size_per_gpu": max(1, training.problem.batch // place.ranks),
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    optimizer = training.optimizer(chain.named_parameters())
    engine, *_ = deepspeed.initialize(model=chain, optimizer=optimizer, config=settings, dist_init_required=False)
    return engine


def _loop(engine: Any, training: Training) -> None:
    """The loop as DeepSpeed wants it: its engine runs the backward pass and the update."""
    log = training.log
    for _ in log.steps():
        with log.phase("Load mb0"):
            inputs, targets = training.batch()
        with log.phase("Forward all"):
            output = engine(inputs)
        with log.phase("Loss mb0"):
            loss = training.loss(output, targets)
        log.loss(loss.item())
        with log.phase("Backward all"):
            engine.backward(loss * training.weight)
        with log.phase("Update all"):
            engine.step()
