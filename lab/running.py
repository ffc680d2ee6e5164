"""``execute`` and ``start``: a strategy on real processes, under the wall clock."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from simulator import checks
from simulator.checking import AnyStrategy
from simulator.experiment import identity
from simulator.facts import Facts
from simulator.holdings import assemble, firsts, replicas
from simulator.problem import Problem
from simulator.rank import Rank
from simulator.run import Run
from simulator.simulate import prepare
from simulator.spans import merged
from simulator.stack import Stack, stack

from . import torchrun
from .engines import engine as engine_of
from .launch import Handle, start_ranks
from .observed import Observed
from .wall import run_rank


def execute(
    strategy: AnyStrategy,
    problem: Problem,
    ranks: int | None = None,
    steps: int = 10,
    seed: int = 0,
    timeout: float = 30.0,
    progress: bool = True,
    engine: str = "program",
) -> Run:
    """Run a strategy for real: one process per rank, gloo on CPUs, nccl where every rank has a GPU.

    - ``ranks``: every process, servers included; 2 unless told otherwise. Under torchrun it is torchrun's number, every
      rank runs this call, and every rank gets the Run.
    - ``steps``: updates per worker. ``seed``: of data and initial weights.
    - ``timeout``: seconds that the run may go on without any progress before it is ended.
    - ``progress``: show a bar when the run takes more than a second.
    - ``engine``: who trains: "program", the strategy's own program; "native", PyTorch's own implementation of the same
      strategy; or another framework (``lab.engines.ENGINES``), which has to be installed. The Run's notes say which.

    Times are seconds. Raises ValueError when strategy, problem and ranks do not fit, ProgramError when the program is
    wrong, DivergedError when a loss is not finite, and RankError, which names the rank, its step and its last
    instruction, when a rank failed, was killed, was stopped or never came. Whatever happens, no process is left over.

    Example::

        run = lab.execute(sim.DataParallel(), sim.problem("digits-mlp"), ranks=2, steps=20)
    """
    checks.flag("progress", progress)
    run = engine_of(engine)
    return run(job(strategy, problem, ranks, steps, seed), timeout, progress)


def start(
    strategy: AnyStrategy,
    problem: Problem,
    ranks: int | None = None,
    steps: int = 10,
    seed: int = 0,
    timeout: float = 30.0,
) -> RunHandle:
    """As ``execute``, but return at once: ``handle.progress``, ``handle.stop()``, ``handle.result()``.

    ``result()`` raises StoppedError after ``stop()``. Raises ValueError under torchrun, where only ``execute`` works.

    Example::

        handle = lab.start(sim.DataParallel(), sim.problem("digits-mlp"), ranks=2, steps=500)
        handle.progress, handle.done
        run = handle.result()
    """
    if torchrun.inside():
        raise ValueError("torchrun has started the ranks already, and each waits for the others: use lab.execute")
    asked = job(strategy, problem, ranks, steps, seed)
    return RunHandle(asked, start_ranks(run_rank, asked.ranks, *asked.arguments, timeout=timeout))


@dataclass(frozen=True)
class Job:
    """What the ranks are asked to do, and how their answers make a Run."""

    stack: Stack
    problem: Problem
    ranks: int
    steps: int
    seed: int

    @property
    def arguments(self) -> tuple[Stack, Problem, int, int]:
        """What each rank gets."""
        return self.stack, self.problem, self.steps, self.seed

    def run(self, observed: list[Observed], notes: Mapping[str, str] | None = None) -> Run:
        """The Run of all ranks; ``notes`` are what else to say of it."""
        model = self.problem.model()
        members = [Rank(self.stack, rank, self.ranks, model, self.steps) for rank in range(self.ranks)]
        pieces = [piece for one in observed for piece in one.pieces]
        return Run(
            clock="wall",
            cluster=f"{self.ranks} processes on {_machines()}",
            spans=merged([one.spans for one in observed]),
            samples=sorted((sample for one in observed for sample in one.samples), key=lambda sample: sample.time),
            outcomes=tuple(one.outcomes for one in observed),
            parameters=assemble(self.problem, self.seed, pieces),
            buffers=firsts(one.buffers for one in observed),
            notes={**({} if self.stack.drifts else replicas(pieces)), **(notes or {})},
            facts=Facts.of(model, reduced=self.stack.reduced),
            clock_error=max(one.clock_error for one in observed),
            **identity(self.stack, self.problem, members, self.steps, self.seed),
        )


class RunHandle:
    """A run under way. The kernel is free meanwhile."""

    def __init__(self, job: Job, handle: Handle):
        self._job, self._handle = job, handle

    @property
    def progress(self) -> float:
        """How much is done, from 0 to 1: that of the slowest rank."""
        return self._handle.progress

    @property
    def done(self) -> bool:
        """Whether the run has ended, well or not."""
        return self._handle.done

    def stop(self) -> None:
        """End the ranks now; ``result`` then says so."""
        self._handle.stop()

    def result(self) -> Run:
        """Wait for the end and give the Run, or raise what went wrong."""
        return self._job.run(self._handle.result())


def job(strategy: AnyStrategy, problem: Problem, ranks: int | None, steps: int, seed: int) -> Job:
    """What is asked, checked as far as it can be before a rank runs. Raises ValueError as ``execute`` says."""
    if not isinstance(problem, Problem):
        raise ValueError(
            f"real ranks learn a Problem, for example sim.problem('digits-mlp'); got {problem!r}{_remedy(problem)}"
        )
    whole = stack(strategy)
    if ranks is None:
        ranks = int(os.environ.get("WORLD_SIZE", "2")) if torchrun.inside() else 2
    prepare(whole, problem.model(), ranks, steps, seed, learning=True)
    problem.check()
    return Job(whole, problem, ranks, steps, seed)


def _machines() -> str:
    return "this machine" if torchrun.hosts() == 1 else f"{torchrun.hosts()} machines"


def _remedy(given: object) -> str:
    return f': write sim.problem("{given}")' if isinstance(given, str) else ""
