"""Save and resume with torch.distributed.checkpoint: every rank writes its shards, and any number of ranks reads them.

    run = checkpoint.train(problem, "somewhere", ranks=2, steps=5)
    run = checkpoint.train(problem, "somewhere", ranks=4, steps=10)  # goes on at step 5, on other ranks

The second run ends where an uninterrupted one would, for the optimizer's memory is saved too, and batches depend on
seed and step alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from simulator import DataParallel, Sharded, checks, stack
from simulator.problem import Problem
from simulator.run import Run
from simulator.stack import Stack

from ..observed import Observed
from ..place import Place
from .choosing import choose
from .sharded import full, quiet, shard
from .training import Training

STRATEGY = stack(DataParallel())
"""What the ranks do in the terms of this package: each has a slice of the batch. FSDP2 keeps everything in shards."""


def train(
    problem: Problem, folder: str | Path, ranks: int = 2, steps: int = 10, seed: int = 0, every: int | None = None,
    timeout: float = 60.0,
) -> Run:  # fmt: skip
    """Train with FSDP2 up to ``steps`` updates, from the newest checkpoint in ``folder`` if there is one.

    A checkpoint is saved at the end, and every ``every`` steps where that is said. ``timeout`` [s]: how long the run
    may go without progress. The Run has losses and spans of the steps that were made now.

    Raises ValueError as ``lab.execute`` does, for an ``every`` below 1, for a rule that shards cannot follow, and
    when the folder's newest checkpoint is beyond ``steps``.
    """
    from ..launch import run_ranks
    from ..running import job

    if every is not None:
        checks.whole("every", every, least=1, of="in steps")
    asked = job(STRATEGY, problem, ranks, steps, seed)
    check(problem, folder, steps)
    where = str(Path(folder).resolve())
    observed = run_ranks(train_rank, ranks, *asked.arguments, where, every, timeout=timeout)
    return asked.run(observed, {"engine": "native: FSDP2 with torch.distributed.checkpoint"})


def train_rank(
    place: Place, strategy: Stack, problem: Problem, steps: int, seed: int, folder: str, every: int | None
) -> Observed:
    """One rank of ``train``."""
    training = Training.of(place, strategy, problem, steps, seed)
    with quiet():
        model = shard(training.chain(), training.mesh()["data"], stage=3)
        optimizer = training.optimizer(model.named_parameters())
        first = load(folder, model, optimizer)
        with training.log.recording():
            for step in training.log.steps(first):
                training.step(model, optimizer)
                if step + 1 == steps or (every and (step + 1) % every == 0):
                    with training.log.phase("Save"):
                        save(folder, step + 1, model, optimizer)
        pieces = training.pieces((name, full(parameter)) for name, parameter in model.named_parameters())
    return training.observed(pieces)


def save(folder: str, made: int, model: nn.Module, optimizer: Any) -> None:
    """Write model and optimizer after ``made`` steps. Called by all ranks at once."""
    parameters, memory = get_state_dict(model, optimizer)
    dcp.save({"model": parameters, "optimizer": memory}, checkpoint_id=str(Path(folder, f"step-{made}")))


def load(folder: str, model: nn.Module, optimizer: Any) -> int:
    """Read the newest checkpoint into model and optimizer; how many steps it had made. Called by all ranks at once."""
    made = newest(folder)
    if made:
        parameters, memory = get_state_dict(model, optimizer)
        state: dict[str, Any] = {"model": parameters, "optimizer": memory}
        dcp.load(state, checkpoint_id=str(Path(folder, f"step-{made}")))
        set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    return made


def newest(folder: str | Path) -> int:
    """After how many steps the newest whole checkpoint was saved; 0 without one. Its metadata is written last."""
    whole = [path.parent.name for path in Path(folder).glob("step-*/.metadata")]
    return max((int(name.removeprefix("step-")) for name in whole), default=0)


def check(problem: Problem, folder: str | Path, steps: int) -> None:
    """Raise ValueError for a rule that shards cannot follow, and when the newest checkpoint is beyond ``steps``."""
    choose(stack(Sharded(stage=3))).check(problem.rule)
    if newest(folder) > steps:
        raise ValueError(
            f"training goes on from the newest checkpoint; {folder} has one after {newest(folder)} steps, asked were"
            f" steps={steps}: take more steps, or another folder"
        )
