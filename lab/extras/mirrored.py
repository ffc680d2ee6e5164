"""TensorFlow's synchronous strategies: every replica has the whole model, and gradients are added up in between."""

from __future__ import annotations

import socket
from array import array
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist

from simulator.collectives import critical_bytes
from simulator.problem import Problem
from simulator.program import AllReduce
from simulator.rules import Rule
from simulator.spans import RANK, WIDTH, Sample, Spans
from simulator.stack import Stack
from simulator.values import bounds
from simulator.workload import rule_of

from ..native.log import Log
from ..observed import Observed
from ..place import Place
from .keras_model import Translated, descend, finite, load, translate


def one_per_process(place: Place, stack: Stack, problem: Problem, steps: int, seed: int) -> list[Observed]:
    """A rank of MultiWorkerMirroredStrategy, with TensorFlow's ring all-reduce over gRPC."""
    place.board.note(0, "loading TensorFlow")
    tf = load({"worker": addresses(place)}, ("worker", place.rank))
    kinds = tf.distribute.experimental
    ring = kinds.CommunicationOptions(implementation=kinds.CommunicationImplementation.RING)
    place.board.note(0, "joining the others", waiting=True)
    strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=ring)
    return _train(tf, strategy, Log(place, steps), (place.rank,), place.ranks, stack, problem, seed)


def all_in_one(replicas: int, place: Place, stack: Stack, problem: Problem, steps: int, seed: int) -> list[Observed]:
    """All replicas of MirroredStrategy in one process, each on a logical CPU of its own."""
    place.board.note(0, "loading TensorFlow")
    tf = load(devices=replicas)
    strategy = tf.distribute.MirroredStrategy(
        [f"CPU:{index}" for index in range(replicas)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),  # others are for GPUs
    )
    return _train(tf, strategy, Log(place, steps), tuple(range(replicas)), replicas, stack, problem, seed)


def addresses(place: Place) -> list[str]:
    """A free port of each rank, all on the loopback address."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        mine = f"127.0.0.1:{free.getsockname()[1]}"
        every: list[Any] = [None] * place.ranks
        dist.all_gather_object(every, mine)  # before any is let go, so that no two are the same
    return every


def _train(
    tf: Any, strategy: Any, log: Log, mine: tuple[int, ...], workers: int, stack: Stack, problem: Problem, seed: int
) -> list[Observed]:
    with strategy.scope():
        model = translate(tf, problem, seed)
    loop = Loop(tf, strategy, model, problem, seed, rule_of(stack, problem), log, mine, workers)
    loop.warm_up()
    loop.train()
    return [loop.observed(index) for index in range(len(mine))]


@dataclass(frozen=True)
class Loop:
    """The custom training loop of a process. Its replicas are the ranks ``mine``; its log is that of the first."""

    tf: Any
    strategy: Any
    model: Translated
    problem: Problem
    seed: int
    rule: Rule
    log: Log
    mine: tuple[int, ...]
    workers: int
    samples: list[Sample] = field(default_factory=list)

    def warm_up(self) -> None:
        """Let TensorFlow compile everything before time counts, and undo what it learned."""
        self.log.place.board.note(0, "compiling", waiting=True)
        gradient, add, update = self.functions()
        _, gradients = gradient(*self.batch(0))
        update(add(gradients))
        self.model.fill(self.problem.parameters(self.seed))

    def train(self) -> None:
        """Three calls per step, so that each is seen by itself."""
        log, (gradient, add, update) = self.log, self.functions()
        with log.recording():
            for step in log.steps():
                with log.phase("Load mb0"):
                    inputs, targets = self.batch(step)
                with log.phase("Compute gradient"):
                    losses, gradients = gradient(inputs, targets)
                self.note(losses)
                start = log.clock.now()
                sums = add(gradients)
                log.sent("data", f"AllReduce {self.model.elements}", start, self.traffic)
                with log.phase("Update all"):
                    update(sums)

    def note(self, losses: Any) -> None:
        """Each replica's loss on its own slice."""
        for rank, loss in zip(self.mine, self.strategy.experimental_local_results(losses), strict=True):
            value = finite(rank, self.log.step, float(loss))
            self.samples.append(Sample(rank, self.log.step, self.log.clock.now(), "loss", value))

    @property
    def traffic(self) -> float:
        """Bytes that a process sends for the gradient of a step; within a process nothing is sent."""
        size = self.model.nbytes
        return critical_bytes(AllReduce, self.workers, size) if len(self.mine) == 1 and self.workers > 1 else 0.0

    def batch(self, step: int) -> tuple[Any, Any]:
        """Each replica's slice of the batch of a step."""
        pair = self.problem.batch_of(self.seed, step)

        def slices(whole: Any) -> Callable[[Any], Any]:
            def mine(context: Any) -> Any:
                part = bounds(self.problem.batch, context.replica_id_in_sync_group, self.workers)
                return self.tf.constant(whole.numpy()[slice(*part)])

            return mine

        inputs, targets = (self.strategy.experimental_distribute_values_from_function(slices(whole)) for whole in pair)
        return inputs, targets

    def functions(self) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
        """(gradient, add, update), compiled; each runs in all replicas at once."""
        tf, strategy, model = self.tf, self.strategy, self.model
        variables = list(model.variables.values())

        def gradient(inputs: Any, targets: Any) -> Any:
            return model.gradient(inputs, targets, 1 / self.problem.batch)

        def add(gradients: Any) -> Any:
            # identity: all_reduce wants to know each tensor's device
            return tf.distribute.get_replica_context().all_reduce("SUM", [tf.identity(one) for one in gradients])

        def update(gradients: Any) -> None:
            def everywhere(strategy: Any, gradients: Any) -> None:
                for variable, one in zip(variables, gradients, strict=True):
                    strategy.extended.update(variable, lambda v, g: descend(tf, self.rule, v, g), args=(one,))

            tf.distribute.get_replica_context().merge_call(everywhere, args=(gradients,))

        def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
            return tf.function(lambda *given: strategy.run(function, args=given), autograph=False)  # type: ignore[no-any-return]

        return compiled(gradient), compiled(add), compiled(update)

    def observed(self, index: int) -> Observed:
        """What one of the replicas brings back: all work at the same time, so the spans are those of all."""

        def read(variable: Any) -> Any:
            return self.strategy.experimental_local_results(variable)[index].numpy()

        rank, pieces = self.mine[index], self.model.pieces(self.problem, read)
        samples = [sample for sample in self.samples if sample.rank == rank]
        return Observed(of_rank(self.log.spans, rank), samples, [], pieces, self.log.clock.error)


def of_rank(spans: Spans, rank: int) -> Spans:
    """The same spans, as those of another rank."""
    data = spans.data[:]
    data[RANK::WIDTH] = array("d", [rank]) * len(spans)
    return Spans(data, list(spans.streams), list(spans.labels))
