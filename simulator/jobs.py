"""Several trainings on one cluster at the same time: each has ranks of its own, and they share links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import NoneType

import simpy

from . import checks
from .checking import AnyStrategy
from .cluster import Cluster
from .clusters.knobs import check_cluster
from .experiment import Experiment
from .folding import apart
from .model import Model
from .network import Network
from .noise import Noise
from .problem import Problem
from .run import Run
from .simulate import DETAILS, adjusted, checked, split
from .stack import stack
from .virtual import uncollected
from .workload import check_workload

JOBS = "a list of Jobs, as in [Job(DataParallel(), model, ranks=(0, 1))]"


@dataclass(frozen=True, eq=False)
class Job:
    """One of several trainings on a cluster; it is timed, not learned.

    - ``strategy``, ``workload``: what runs.
    - ``ranks``: those of the cluster that it runs on, in the order in which the job numbers them.
    - ``start``: when it begins [s].
    - ``steps``, ``seed``, ``noise``: as of ``simulate``; noise counts the job's own ranks.
    - ``batch``, ``dtype``, ``recompute``: of a Model, instead of its own, as of ``simulate``.
    """

    strategy: AnyStrategy
    workload: Model | Problem
    ranks: Sequence[int]
    steps: int = 10
    start: float = 0.0
    seed: int = 0
    noise: Noise | None = None
    batch: int | None = None
    dtype: str | None = None
    recompute: str | None = None

    def __post_init__(self) -> None:
        every = checks.several("ranks", self.ranks, "the ranks of the cluster that a job runs on, such as (0, 1)")
        object.__setattr__(self, "ranks", tuple(checks.whole("ranks", rank, of="a Job") for rank in every))
        checks.owned(self)
        checks.number("start", self.start, least=0, of="in seconds")
        checks.whole("steps", self.steps, least=1, of="a Job")
        checks.whole("seed", self.seed, of="a Job")
        checks.kind("noise", self.noise, (Noise, NoneType), "a law such as noise.gamma(shape=4), or None")
        stack(self.strategy)
        check_workload(self.workload)
        knobs = dict(batch=self.batch, dtype=self.dtype, recompute=self.recompute)
        object.__setattr__(self, "workload", adjusted(self.workload, **knobs))


def simulate_jobs(jobs: Sequence[Job], cluster: Cluster, detail: str = "flow", fit: bool = True) -> list[Run]:
    """Run several jobs on one cluster under the virtual clock; one Run for each, in their order.

    Flows of all jobs share links max-min fairly. Times in the runs are those of the cluster: a job that starts later
    has later spans, and ``run.makespan`` counts from its own first. Without shared links each Run is what ``simulate``
    gives on ``cluster.subset(job.ranks)``.

    - ``detail``, ``fit``: as of ``simulate``. All ranks are simulated, for links are not shared alike.

    Raises ValueError for ranks that two jobs claim or that the cluster does not have, and what ``simulate`` raises.

    >>> from simulator import Cluster, DataParallel, Model
    >>> pairs = Cluster.flat(ranks=4, bandwidth=1e9)
    >>> model = Model.of_times(blocks=2, parameters=10**6)
    >>> runs = simulate_jobs([Job(DataParallel(), model, (0, 1)), Job(DataParallel(), model, (2, 3), start=5.0)], pairs)
    >>> [run.ranks for run in runs], [round(run.makespan, 6) for run in runs], runs[1].spans[0].start
    ([2, 2], [60.04, 60.04], 5.0)
    """
    check_cluster(cluster)
    if detail not in DETAILS:
        raise ValueError(f"detail is one of {', '.join(map(repr, DETAILS))}; got detail={detail!r}")
    checks.flag("fit", fit)
    jobs = checks.several("jobs", jobs, JOBS)
    for job in jobs:
        checks.kind("jobs", job, Job, JOBS)
    if not jobs:
        raise ValueError(f"jobs is {JOBS}; got none")
    _disjoint(jobs, cluster.ranks)
    network = Network(simpy.Environment(), cluster.bandwidth)
    experiments = [_experiment(job, cluster.subset(job.ranks), detail, fit) for job in jobs]
    machines = [one.machine(apart(one.cluster.ranks), network) for one in experiments]
    with uncollected():
        for job, machine in zip(jobs, machines):
            machine.begin(job.start)
        network.env.run()
    for machine in machines:
        machine.ending.check()
    return [one.observed(machine) for one, machine in zip(experiments, machines)]


def _disjoint(jobs: Sequence[Job], ranks: int) -> None:
    owners: dict[int, int] = {}
    for number, job in enumerate(jobs):
        if not job.ranks or max(job.ranks) >= ranks or len(set(job.ranks)) < len(job.ranks):
            raise ValueError(
                f"a job has ranks of the cluster, from 0 to {ranks - 1}, each once; job {number} has"
                f" {checks.shown(job.ranks)}"
            )
        for rank in job.ranks:
            if owners.setdefault(rank, number) != number:
                raise ValueError(f"a rank has one job; rank {rank} is claimed by jobs {owners[rank]} and {number}")


def _experiment(job: Job, cluster: Cluster, detail: str, fit: bool) -> Experiment:
    """A job, checked, on its part of the cluster."""
    whole, (_, model) = stack(job.strategy), split(job.workload, learn=False)
    experiment = Experiment(whole, job.workload, None, model, cluster, job.steps, job.seed, job.noise, None, detail)
    checked(experiment, fit)
    return experiment
