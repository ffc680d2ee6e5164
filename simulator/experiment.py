"""A strategy on a cluster, checked and ready to run."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from .cluster import Cluster
from .errors import Uneven
from .facts import Facts
from .folding import Folding, Programs, folded
from .holdings import assemble, firsts, replicas
from .memory import Text
from .model import Model
from .network import Network
from .noise import Noise
from .problem import Problem
from .rank import Rank
from .run import Run
from .stack import Stack
from .virtual import Machine
from .workload import rule_of

if TYPE_CHECKING:
    from .learning import Tensors


@dataclass(frozen=True, eq=False)
class Experiment:
    """What ``simulate`` runs: ``problem`` is learned, if it is given; the ``model`` of the workload is timed."""

    whole: Stack
    workload: Model | Problem
    problem: Problem | None
    model: Model
    cluster: Cluster
    steps: int
    seed: int
    noise: Noise | None = None
    outcomes: tuple[list[int], ...] | None = None
    detail: str = "flow"

    @property
    def foldable(self) -> bool:
        """Whether ranks that say the same may be simulated once: none has data, luck or a history of its own."""
        alike = self.noise is None or self.noise.kind(0) is not None
        return self.problem is None and alike and self.outcomes is None and self.detail == "flow"

    def machine(
        self, folding: Folding, network: Network | None = None, tensors: Sequence[Tensors] | None = None
    ) -> Machine:
        """A machine that will run it; the links are its own, unless a network is given."""
        members = [mine.me for mine in tensors] if tensors is not None else self.members(folding)
        return Machine(
            self.whole,
            members,
            self.cluster,
            seed=self.seed,
            noise=self.noise,
            tensors=tensors,
            replay=self.outcomes,
            check=not self.whole.order.static,
            network=network,
            folding=folding,
            detail=self.detail,
        )

    def members(self, folding: Folding) -> list[Rank]:
        """The ranks that are simulated."""
        rule = rule_of(self.whole, self.workload)
        return [Rank(self.whole, rank, self.cluster.ranks, self.model, self.steps, rule) for rank in folding.leaders]

    def run_folded(self, told: Programs, few: bool) -> Run:
        """Run it with ranks that behave alike once: by what is ``told`` of them, and by what links turn out to carry.

        Raises CannotFold where that does not give the same times.
        """
        uneven: list[Uneven] = []
        while True:
            try:
                return self.run(folded(told, self.whole, self.cluster, few, self.noise, uneven))
            except Uneven as found:
                if any((found.axis, found.marks) == (one.axis, one.marks) for one in uneven):
                    raise
                uneven.append(found)

    def run(self, folding: Folding) -> Run:
        """Run it from the beginning to its end."""
        with single_threaded(self.problem):
            if self.problem is not None:
                self.problem.check()
            tensors = self.tensors(folding)
            machine = self.machine(folding, tensors=tensors)
            machine.run()
            return self.observed(machine, **self.learned(tensors))

    def tensors(self, folding: Folding) -> list[Tensors] | None:
        """Of every rank that is simulated; None where nothing is learned."""
        if self.problem is None:
            return None
        from .learning import Batches, Tensors

        batches = Batches(self.problem, self.seed)
        return [Tensors(me, self.problem, self.seed, batches) for me in self.members(folding)]

    def learned(self, tensors: Sequence[Tensors] | None) -> dict[str, Any]:
        """The fields of a Run that say what was learned."""
        if self.problem is None or tensors is None:
            return {}
        pieces = [piece for mine in tensors for piece in mine.pieces(self.whole.holds(mine.me))]
        return dict(
            parameters=assemble(self.problem, self.seed, pieces),
            notes={} if self.whole.drifts else replicas(pieces),
            buffers=firsts(mine.buffers() for mine in tensors),
        )

    def observed(self, machine: Machine, **learned: Any) -> Run:
        """The Run of a machine that has come to its end, and what was ``learned``."""
        states, folding = [machine.state_of(rank) for rank in range(self.cluster.ranks)], machine.folding
        return Run(
            clock="virtual",
            cluster=str(self.cluster),
            spans=machine.spans,
            samples=machine.samples,
            outcomes=tuple(state.outcomes for state in states),
            facts=Facts.of(self.model, self.cluster, self.whole.reduced),
            alike=tuple(folding.of) if folding.folds else (),
            sent=machine.gathering.sent(machine.spans) if folding.folds else (),
            **learned,
            **identity(self.whole, self.workload, [state.me for state in states], self.steps, self.seed),
        )


def identity(whole: Stack, workload: Model | Problem, members: Sequence[Rank], steps: int, seed: int) -> dict[str, Any]:
    """The fields of a Run that say what ran, given each rank or one like it; the same on both clocks."""
    model = members[0].model
    rule = rule_of(whole, workload)
    return dict(
        strategy=str(whole),
        workload=workload.name,
        ranks=len(members),
        workers=tuple(rank for rank, me in enumerate(members) if me.share is not None),
        slices=tuple(me.slice[1] - me.slice[0] for me in members if me.share is not None),
        steps=steps,
        seed=seed,
        batch=model.batch,
        asynchronous=whole.order.asynchronous,
        versions=versions(),
        text=Text(whole, members[0].whole_model, len(members), rule),
    )


def versions() -> dict[str, str]:
    """Of Python and of what matters for the numbers."""
    return dict(_versions())


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    """Read once: that takes longer than a small simulation."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("two-clocks", "simpy", "networkx", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return tuple(found.items())


@contextmanager
def single_threaded(problem: Problem | None) -> Iterator[None]:
    """One torch thread, as real ranks have, so that sums are added in the same order on both clocks."""
    if problem is None:
        yield
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
