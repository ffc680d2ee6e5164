"""A trial of a problem before it is learned: mistakes, and what a run must know about its blocks."""

from __future__ import annotations

from dataclasses import dataclass
from math import isclose
from typing import TYPE_CHECKING

import torch

from .draws import seeded
from .inspection import SAMPLES, applied

if TYPE_CHECKING:
    from ..problem import Problem


@dataclass(frozen=True)
class Traits:
    """The numbers of the blocks that ask for care; the loss has the number after the last block.

    - ``draws``: they draw from torch's random numbers, as Dropout does.
    - ``overwrites``: they write over what enters them, as ``ReLU(inplace=True)`` does.
    - ``keeps``: training changes buffers of theirs, as a BatchNorm's running means.
    """

    draws: frozenset[int]
    overwrites: frozenset[int]
    keeps: frozenset[int]


def tried(problem: Problem) -> Traits:
    """Run two samples as training does. Raises ValueError when blocks, loss or data break what ``Problem`` asks."""
    if not all(map(torch.equal, problem.drawn(0, 0), problem.drawn(0, 0))):
        raise ValueError(
            "data(seed, step) gives the same batch each time; two calls of data(0, 0) differed; draw with a"
            " generator seeded from seed and step"
        )
    _check_prepared(problem)
    inputs, targets = problem.batch_of(0, 0)
    problem.shapes()
    blocks, trial = problem.build(0), Trial()
    _check_learns(blocks)
    act, targets = inputs[:SAMPLES], targets[:SAMPLES]
    for number, block in enumerate(blocks):
        act = trial.block(number, block.train(), act)
    loss = trial.loss(len(blocks), problem, act, targets)
    _check_scalar(loss)
    with seeded(0):
        _check_mean(problem, float(loss.detach()), act.detach(), targets)
    return Traits(frozenset(trial.draws), frozenset(trial.overwrites), frozenset(trial.keeps))


class Trial:
    """Watches blocks and loss while they run."""

    def __init__(self) -> None:
        self.draws: set[int] = set()
        self.overwrites: set[int] = set()
        self.keeps: set[int] = set()

    def block(self, number: int, block: torch.nn.Module, act: torch.Tensor) -> torch.Tensor:
        """What a block makes of what enters it. Raises ValueError when it makes something else the next time."""
        before = {name: buffer.clone() for name, buffer in block.named_buffers()}
        entering = act.clone()  # of a leaf, or of what the block before has kept: neither may be written over
        version = entering._version
        with seeded(0):
            state = torch.get_rng_state()
            out = applied(number, block, entering)
            self._note(number, not torch.equal(state, torch.get_rng_state()), entering._version != version)
        for name, buffer in block.named_buffers():
            if not torch.equal(before[name], buffer):
                self.keeps.add(number)
                buffer.copy_(before[name])
        with seeded(0), torch.no_grad():
            again = applied(number, block, act.detach().clone())
        if not torch.allclose(out.detach(), again, equal_nan=True):
            raise ValueError(
                f"blocks give the same for the same input and the same seed of torch; block {number} did not; draw"
                " from torch's own random numbers, and keep from call to call what is in buffers alone"
            )
        return out

    def loss(self, number: int, problem: Problem, output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss. Raises ValueError, with what torch says, where it cannot take output and targets."""
        given = output.clone()
        version = given._version
        with seeded(0):
            state = torch.get_rng_state()
            loss = _loss(problem, given, targets)
            self._note(number, not torch.equal(state, torch.get_rng_state()), given._version != version)
        return loss

    def _note(self, number: int, draws: bool, overwrites: bool) -> None:
        if draws:
            self.draws.add(number)
        if overwrites:
            self.overwrites.add(number)


def _loss(problem: Problem, output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    try:
        return problem.loss(output, targets)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"loss(output, targets) cannot take an output of shape {tuple(output.shape)} and {output.dtype} with"
            f" targets of shape {tuple(targets.shape)} and {targets.dtype}: {type(error).__name__}: {error}"
        ) from error


def _check_prepared(problem: Problem) -> None:
    """Ranks prepare their own samples, in microbatches."""
    if problem.prepare is None:
        return
    inputs, targets = (x[:SAMPLES] for x in problem.drawn(0, 0))
    together = problem.prepared(inputs, targets)
    singly = [problem.prepared(inputs[i : i + 1], targets[i : i + 1]) for i in range(len(inputs))]
    if not all(torch.equal(both, torch.cat(each)) for both, each in zip(together, zip(*singly))):
        raise ValueError(
            f"prepare(inputs, targets) treats each sample for itself, and each time alike; on {len(inputs)} samples it"
            " gave something else than on each of them: take what it needs of the whole batch into data(seed, step)"
        )


def _check_learns(blocks: list[torch.nn.Module]) -> None:
    if not any(parameter.requires_grad for block in blocks for parameter in block.parameters()):
        raise ValueError(
            f"a problem that is learned has parameters; none of its {len(blocks)} block(s) has one that learns;"
            " give for instance a torch.nn.Linear, or only time it: learn=False"
        )


def _check_scalar(loss: object) -> None:
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else f"a {type(loss).__name__}"
        raise ValueError(f"loss(output, targets) is a tensor with one element; got {got}; take the mean over samples")
    if not loss.requires_grad:
        raise ValueError("the loss depends on the parameters; this one has no gradient; look for .detach() or .item()")


def _check_mean(problem: Problem, both: float, output: torch.Tensor, targets: torch.Tensor) -> None:
    """A sum over samples would silently multiply the gradients by the size of a worker's slice."""
    # cloned, for a loss may write over its output
    single = [float(_loss(problem, output[i : i + 1].clone(), targets[i : i + 1])) for i in range(len(output))]
    mean = sum(single) / len(single)
    if not isclose(both, mean, rel_tol=1e-3, abs_tol=1e-6):
        raise ValueError(
            f"the loss is the mean over samples; on {len(single)} samples it is {both:.6g}, while the mean of the"
            f" {len(single)} taken singly is {mean:.6g}; use reduction='mean'"
        )
