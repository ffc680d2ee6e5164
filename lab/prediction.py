"""What a program takes on this machine, predicted: its profile, the machine's messages, and cores that ranks share."""

from __future__ import annotations

from dataclasses import dataclass, field

from simulator.checking import AnyStrategy
from simulator.cluster import Cluster
from simulator.cores import Cores
from simulator.experiment import Experiment, single_threaded
from simulator.folding import apart
from simulator.problem import Problem
from simulator.problems import problem as named
from simulator.program import Instruction
from simulator.rank import Rank
from simulator.run import Run
from simulator.stack import stack

from .machine import busy_cores, cores
from .measuring import Costs, measure_collectives
from .probing import measure_network
from .profiling import Profile


@dataclass(frozen=True)
class Here:
    """A machine as measured: what is between its processes, its cores, and what its interpreter takes.

    ``busy`` is how many cores other processes were using when it was measured.
    """

    cluster: Cluster
    cores: int
    costs: Costs = field(default_factory=Costs)
    busy: float = 0.0


def measure_here(ranks: int, seed: int = 0) -> Here:
    """Measure what is between ``ranks`` processes of this machine: messages, collectives, empty instructions.

    Takes some seconds on an idle machine, once for each number of ranks.
    """
    busy, probe = busy_cores(), named("quadratic")
    cluster, costs = measure_collectives(measure_network(probe, ranks, seed), probe, seed)
    return Here(cluster, cores(), costs, busy)


def predict(
    strategy: AnyStrategy,
    problem: Problem,
    here: Here,
    profile: Profile,
    steps: int = 20,
    seed: int = 0,
    learn: bool = False,
) -> Run:
    """The Run of a strategy on this machine under the virtual clock.

    With ``learn`` it has tensors: some programs do not tell without them what they send. Raises ValueError where they
    are needed and not there, and where the profile is of another number of ranks.

    Example::

        problem, strategy = sim.problem("digits-mlp"), sim.DataParallel()
        predict(strategy, problem, measure_here(ranks=2), profile(strategy, problem, 2)).step_times
    """
    whole, model, ranks = stack(strategy), problem.model(), here.cluster.ranks
    if len(profile.seconds) != ranks:
        raise ValueError(f"a profile is of as many ranks as the machine has; got {len(profile.seconds)} for {ranks}")
    experiment = Experiment(whole, problem, problem if learn else None, model, here.cluster, steps, seed)
    tensors = experiment.tensors(apart(ranks))
    machine = experiment.machine(apart(ranks), tensors=tensors)

    def seconds(instruction: Instruction, me: Rank) -> float:
        return here.costs.instruction + profile.of(instruction, me)

    Cores(machine, here.cores, seconds, here.costs.copying, here.costs.start, here.costs.wait)
    with single_threaded(experiment.problem):
        machine.run()
    return experiment.observed(machine, **experiment.learned(tensors))
