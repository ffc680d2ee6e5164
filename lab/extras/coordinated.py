"""TensorFlow's asynchronous parameter servers: a coordinator hands out batches, workers update what servers keep."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

from simulator.problem import Problem
from simulator.rules import Rule
from simulator.spans import COMPUTE, Sample, Spans
from simulator.stack import Stack
from simulator.values import bounds
from simulator.workload import rule_of

from ..clocks import Clock
from ..observed import Observed
from ..place import Place
from .keras_model import Translated, descend, finite, load, translate
from .mirrored import addresses

AHEAD = 4
"""Batches per worker that are handed out before the first of them is done."""
_OVER = "two-clocks/over"


def take_part(servers: int, place: Place, stack: Stack, problem: Problem, steps: int, seed: int) -> list[Observed]:
    """Be a server, a worker or, as the last rank, the coordinator, which alone observes something."""
    place.board.note(0, "loading TensorFlow")
    tf, every = load(), addresses(place)
    cluster = {"ps": every[:servers], "worker": every[servers:-1], "chief": every[-1:]}
    if place.rank == place.ranks - 1:
        return _coordinate(tf, cluster, place, rule_of(stack, problem), problem, steps, seed)
    job, index = ("ps", place.rank) if place.rank < servers else ("worker", place.rank - servers)
    tf.distribute.Server(tf.train.ClusterSpec(cluster), job_name=job, task_index=index, protocol="grpc")
    dist.barrier()
    place.board.note(0, f"serving as {job}", waiting=True)
    while not _get_default_store().check([_OVER]):
        place.board.progress(1.0)
        time.sleep(0.05)
    return []


def _coordinate(
    tf: Any, cluster: dict[str, list[str]], place: Place, rule: Rule, problem: Problem, steps: int, seed: int
) -> list[Observed]:
    dist.barrier()
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster), rpc_layer="grpc", task_type="chief", task_id=0
    )
    place.board.note(0, "joining the others", waiting=True)
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    with strategy.scope():
        model = translate(tf, problem, seed)
        version = tf.Variable(0, dtype=tf.int64, trainable=False)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    servers, workers = len(cluster["ps"]), len(cluster["worker"])
    run = Coordinated(tf, coordinator, model, version, problem, rule, place, servers, workers)
    run.warm_up(seed)
    run.train(steps, seed)
    found = run.observed()
    _get_default_store().set(_OVER, "1")
    return found


@dataclass(frozen=True)
class Done:
    """What a worker tells about one gradient; times by its own clock [s since 1970]."""

    worker: int
    loss: float
    version: int
    staleness: int
    began: float
    computed: float
    ended: float


@dataclass
class Coordinated:
    """The coordinator's loop. Worker w is rank ``servers + w``."""

    tf: Any
    coordinator: Any
    model: Translated
    version: Any
    problem: Problem
    rule: Rule
    place: Place
    servers: int
    workers: int
    clock: Clock = field(default_factory=Clock)
    done: list[Done] = field(default_factory=list)

    def warm_up(self, seed: int) -> None:
        """Let the workers compile the function before time counts, and undo what they learned."""
        self.place.board.note(0, "compiling", waiting=True)
        self._work = self._compiled()
        for part in range(AHEAD * self.workers):  # more than one each, so that hardly a worker gets none
            self._schedule(part, seed)
        self.coordinator.join()
        self.model.fill(self.problem.parameters(seed))
        self.version.assign(0)

    def train(self, steps: int, seed: int) -> None:
        """Hand out every worker's slice of every batch, to whichever worker is idle."""
        self.clock = Clock(time.monotonic())
        under_way: deque[Any] = deque()
        for number in range(steps * self.workers):
            under_way.append(self._schedule(number, seed))
            self._note(number, steps)
            if len(under_way) > AHEAD * self.workers:
                self._finish(under_way.popleft())
        while under_way:
            self._finish(under_way.popleft())

    def _schedule(self, number: int, seed: int) -> Any:
        step, part = divmod(number, self.workers)
        mine = slice(*bounds(self.problem.batch, part, self.workers))
        inputs, targets = (whole.numpy()[mine] for whole in self.problem.batch_of(seed, step))
        scale = self.workers / self.problem.batch
        arguments = (self.tf.constant(inputs), self.tf.constant(targets), self.tf.constant(scale, inputs.dtype))
        return self.coordinator.schedule(self._work, args=arguments)

    def _note(self, number: int, steps: int) -> None:
        self.place.board.progress(number / (steps * self.workers))
        self.place.board.note(number // self.workers, f"Schedule {number}", waiting=True)

    def _finish(self, remote: Any) -> None:
        worker, loss, version, staleness, *times = remote.fetch()
        self.done.append(Done(int(worker), float(loss), int(version), int(staleness), *map(float, times)))

    def _compiled(self) -> Callable[..., Any]:
        """What a worker does: read the version and the parameters, compute, update, count the update."""
        tf, model = self.tf, self.model
        variables = list(model.variables.values())

        def work(inputs: Any, targets: Any, scale: Any) -> Any:
            began = tf.timestamp()
            with tf.control_dependencies([began]):
                version = self.version.read_value()
            with tf.control_dependencies([version]):
                loss, gradients = model.gradient(inputs, targets, scale)
            with tf.control_dependencies(gradients):
                computed = tf.timestamp()
            with tf.control_dependencies([computed]):
                updates = [descend(tf, self.rule, v, g) for v, g in zip(variables, gradients, strict=True)]
            with tf.control_dependencies(updates):
                now = self.version.assign_add(1, read_value=True)
            with tf.control_dependencies([now]):
                ended = tf.timestamp()
            who = tf.distribute.coordinator.experimental_get_current_worker_index()
            return who, loss, version, now - 1 - version, began, computed, ended

        return tf.function(work, autograph=False)  # type: ignore[no-any-return]

    # ------------------------------------------------------------ what was observed

    def observed(self) -> list[Observed]:
        """One entry for all ranks; the parameters are those of the servers."""
        spans, made = Spans(), Counter[int]()
        zero = time.time() - self.clock.now()
        samples: list[Sample] = []
        for one in sorted(self.done, key=lambda done: done.ended):
            rank, step = self.servers + one.worker, made[one.worker]
            made[one.worker] += 1
            began, computed, ended = one.began - zero, one.computed - zero, one.ended - zero
            spans.add(rank, COMPUTE, "Compute gradient", step, began, computed)
            spans.add(rank, "to 0", "Send gradient", step, computed, ended, self.model.nbytes)
            samples.append(Sample(rank, step, computed, "loss", finite(rank, step, one.loss), one.version))
            samples.append(Sample(0, step, ended, "staleness", one.staleness, one.version))
        return [Observed(spans, samples, [], self.model.pieces(self.problem), 0.0)]
