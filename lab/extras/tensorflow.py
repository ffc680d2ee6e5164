"""The engine ``tensorflow``: data parallelism and asynchronous parameter servers as TensorFlow has them.

- ``DataParallel`` is MultiWorkerMirroredStrategy: one process per rank, gradients added by a ring.
- ``ParameterServer(mode="async")`` is ParameterServerStrategy: a process per server and worker, and a coordinator,
  which is no rank. It gives each slice of a batch to whichever worker is idle. Of the bytes, those that workers send
  are known.

MirroredStrategy, all replicas in one process, is the engine ``tensorflow-mirrored``. Blocks become Keras layers with
the same weights; only those of ``translation.KNOWN`` do. The rule is SGD. TensorFlow's servers listen on all network
interfaces, for which it has no setting; they are reached over the loopback one, and live as long as the run.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from simulator.rules import SGD
from simulator.strategies import ParameterServer
from simulator.workload import rule_of

from .preparing import Extra, ranks_once
from .translation import layers, loss_of

if TYPE_CHECKING:
    from simulator.run import Run

    from ..running import Job

REPLICATED = {"DataParallel": ("bucket_bytes", "overlap", "replicas")}
EXTRA = Extra(
    "tensorflow", "tensorflow", "tensorflow-cpu", "tensorflow", {**REPLICATED, "ParameterServer": ("servers", "mode")}
)


def execute(job: Job, timeout: float, progress: bool) -> Run:
    """Train with TensorFlow. ValueError for a strategy, rule, block or loss that it is not given here."""
    accept(EXTRA, job)
    if isinstance(job.stack.order, ParameterServer):
        from .coordinated import take_part

        servers = job.stack.order.servers
        found = ranks_once(partial(take_part, servers), job, job.ranks + 1, timeout, progress)[-1]
        return job.run(found, EXTRA.note("ParameterServerStrategy"))
    from .mirrored import one_per_process

    every = ranks_once(one_per_process, job, job.ranks, timeout, progress)
    return job.run([observed for mine in every for observed in mine], EXTRA.note("MultiWorkerMirroredStrategy"))


def accept(extra: Extra, job: Job) -> None:
    """Everything that can be refused before TensorFlow is loaded."""
    part = extra.fit(job.stack)
    if isinstance(part, ParameterServer) and part.mode != "async":
        raise ValueError(f'TensorFlow\'s parameter servers are asynchronous; got {part}: write mode="async"')
    if type(rule_of(job.stack, job.problem)) is not SGD:
        raise ValueError(f"engine={extra.name!r} updates with rules.SGD; got {rule_of(job.stack, job.problem)}")
    layers(job.problem.build(job.seed))
    loss_of(job.problem)
    extra.accept(job)
