"""What does the wall clock cost? A step of DataParallel against one of plain PyTorch DDP, on the same two ranks.

Both learn the same problem from the same weights, batches and slices, in short turns one after the other, so that a
busy machine slows both alike. A step lasts from its first instruction to that of the next. The target is a ratio of
the medians of at most 1.10 for tiny-gpt. DDP uses the problem's own rule over the model's parameters, as users do.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from statistics import median, quantiles

import torch
from torch.nn.parallel import DistributedDataParallel

import simulator as sim
from lab.launch import Place, run_ranks
from lab.observed import Observed
from lab.running import Job
from lab.wall import run_rank
from simulator.values import bounds

TARGET = 1.10
SEED = 0


@dataclass(frozen=True)
class Turn:
    """What one rank brings back from one turn of each: when DDP's steps began [s], its parameters, and our run."""

    ddp: list[float]
    parameters: torch.Tensor
    ours: Observed


def train_ddp(place: Place, problem: sim.Problem, steps: int) -> tuple[list[float], torch.Tensor]:
    """A training loop as one writes it with PyTorch alone: (beginnings of the steps, parameters at the end)."""
    model = DistributedDataParallel(torch.nn.Sequential(*problem.build(SEED)))
    optimizer = problem.rule.optimizer(list(model.parameters()))
    mine = slice(*bounds(problem.batch, place.rank, place.ranks))
    begins, losses = [], []
    for step in range(steps):
        begins.append(time.perf_counter())
        inputs, targets = problem.batch_of(SEED, step)
        optimizer.zero_grad()
        loss = problem.loss(model(inputs[mine]), targets[mine])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return begins, torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])


def compete(place: Place, job: Job, turns: int) -> list[Turn]:
    """Called on every rank: ours and DDP in turns."""
    found = []
    for _ in range(turns):
        ours = run_rank(place, *job.arguments)
        found.append(Turn(*train_ddp(place, job.problem, job.steps), ours))
    return found


def step_times(begins: list[float]) -> list[float]:
    """How long each step took [s]."""
    return [after - before for before, after in pairwise(begins)]


def our_begins(ours: Observed) -> list[float]:
    """When our steps began [s]: each begins by loading its batch."""
    return [span.start for span in ours.spans if span.instruction.startswith("Load")]


def compare(name: str, ranks: int = 2, turns: int = 5, steps: int = 20) -> None:
    """Run both on one problem and print the figures."""
    job = Job(sim.stack(sim.DataParallel()), sim.problem(name), ranks, steps, SEED)
    everything = [turn for rank in run_ranks(compete, ranks, job, turns) for turn in rank]
    ours = [x for turn in everything for x in step_times(our_begins(turn.ours))]
    ddp = [x for turn in everything for x in step_times(turn.ddp)]
    flat = [torch.cat([torch.from_numpy(numbers) for _, numbers in turn.ours.pieces]) for turn in everything]
    apart = max(float((ours - turn.parameters).abs().max()) for ours, turn in zip(flat, everything, strict=True))
    print(f"{name}, {ranks} ranks, {turns} turns of {steps} steps each; parameters differ by {apart:.1e} at most")
    for what, of in (("median", median), ("fastest tenth", lambda times: quantiles(times, n=10)[0])):
        mine, theirs = 1e3 * of(ours), 1e3 * of(ddp)
        print(f"{what} of the step times: ours {mine:.2f} ms, DDP {theirs:.2f} ms, ratio {mine / theirs:.3f}")


if __name__ == "__main__":
    for problem in ("tiny-gpt", "digits-mlp"):
        compare(problem)
    print(f"target: a ratio of the medians of at most {TARGET:.2f} for tiny-gpt")
