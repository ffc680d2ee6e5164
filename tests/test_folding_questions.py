"""Whatever a program asks its rank, folding notices: ranks that would do something else are simulated apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

import simulator as sim
from simulator.clusters import Speed, Star
from simulator.program import Instruction
from simulator.values import Chunk, Grads, Named, Params

MODEL = sim.Model.of_times(blocks=2, parameters=10**6, batch=64)
Says = Callable[[sim.Rank, int], Iterable[Instruction]]


def nothing() -> None:
    """What the maths of these programs do."""


def takes(seconds: float) -> sim.Compute:
    return sim.Compute(nothing, (Params(0),), (), seconds=seconds)


@dataclass(frozen=True)
class Own(sim.Order):
    """Data parallelism with something of one's own in every step."""

    axis: ClassVar[str] = "data"
    says: Says = field(default=lambda me, step: ())

    def share(self, me: sim.Rank) -> tuple[int, int]:
        return me.at("data"), me.size("data")

    def program(self, me: sim.Rank) -> sim.Program:
        for step in me.steps():
            yield sim.Load()
            for block in me.blocks:
                yield sim.Forward(block)
            yield sim.Loss(len(me.blocks))
            for block in reversed(me.blocks):
                yield sim.Backward(block)
            yield from self.says(me, step)
            yield sim.AllReduce(Grads(me.blocks), over="data")
            yield sim.Update(Params(me.blocks))


def both(strategy: object, cluster: sim.Cluster, steps: int = 7) -> tuple[sim.Run, sim.Run]:
    found = [sim.simulate(strategy, MODEL, cluster, steps=steps, fold=fold) for fold in ("always", False)]
    assert found[0].busy == pytest.approx(found[1].busy, rel=1e-9)
    assert found[0].step_times == pytest.approx(found[1].step_times, rel=1e-9)
    assert found[0].bytes_sent == pytest.approx(found[1].bytes_sent, rel=1e-9)
    assert found[0].exposed_communication == pytest.approx(found[1].exposed_communication, rel=1e-9)
    return found[0], found[1]


QUESTIONS: dict[str, Says] = {
    "a rank": lambda me, step: [takes(float(me.rank))],
    "a place": lambda me, step: [takes(1.0)] if me.at(axis="data") == 2 else [],
    "the first": lambda me, step: [takes(1.0)] if me.first("data") else [],
    "a share": lambda me, step: [takes(1.0)] if me.share[0] == 3 else [],  # type: ignore[index]
    "a whole share": lambda me, step: [takes(1.0)] if me.share == (3, 8) else [],
    "samples": lambda me, step: [takes(1.0)] if me.slice[0] else [],
    "another rank": lambda me, step: [takes(1.0)] if me.peer(axis="data", position=0) == me.rank else [],
    "a group": lambda me, step: [takes(1.0)] if me.group("data").index(me.rank) == 2 else [],
    "a part of a share": lambda me, step: [takes(1.0)] if me.divided((0, 1), "data") == (2, 8) else [],
    "a chunk": lambda me, step: [takes(1e-6 * me.elements(me.chunk(Params(1), "data")))],
    "a chunk of a buffer": lambda me, step: [takes(1.0)] if me.chunk(Named("b"), "data") == CHUNK else [],
    "late, the last": lambda me, step: [takes(1.0)] if step == 3 and me.last("data") else [],
    "late, a place": lambda me, step: [takes(float(me.at("data")))] if step == 5 else [],
    "late, a message": lambda me, step: around(me) if step == 4 else [],
}
CHUNK = Chunk(Named("b"), 2, 8)


def around(me: sim.Rank) -> Iterable[Instruction]:
    n = me.size("data")
    yield sim.Send(Params(0), to=(me.at("data") + 1) % n, over="data")
    yield sim.Recv(Params(0), source=(me.at("data") - 1) % n, over="data", into=Named("theirs"))


@pytest.mark.parametrize("name", QUESTIONS)
def test_what_is_asked_tells_ranks_apart(name):
    both(Own(QUESTIONS[name]), sim.cluster("single-switch", ranks=8))


def test_what_is_not_asked_does_not():
    one, _ = both(Own(lambda me, step: [takes(me.samples(0) + me.size("data") + step)]), sim.cluster("ideal", ranks=8))
    assert one.stands_for == {0: 8}


def test_what_changes_after_many_steps_is_not_missed():
    """One-bit Adam warms up, and then communicates in another way."""
    both(sim.OneBitAdam(warmup=2), sim.cluster("single-switch", ranks=4))


def test_ranks_on_unlike_links_are_not_alike():
    """The first rank has a fast link, all others are at home; and machines of two generations, the newer first."""
    one, _ = both(sim.DataParallel(), sim.cluster("edge", ranks=16, device="h100-sxm"))
    assert len(one.stands_for) == 2
    mixed = sim.cluster("mixed", nodes=2, device="h100-sxm").subset([*range(8, 16), *range(8)])
    assert len(both(sim.DataParallel(), mixed)[0].stands_for) == 2
    turns = (Speed(10e9), Speed(1e9))
    both(sim.DataParallel(), sim.Cluster("by turns", 8, Star(8, turns, turns)))


def test_a_part_of_a_cluster_folds_as_the_whole():
    whole = sim.cluster("dgx-a100", nodes=4, pod=2)
    assert both(sim.DataParallel(), whole)[0].stands_for == {0: 32}
    assert both(sim.DataParallel(), whole.subset(range(32)))[0].stands_for == {0: 32}


def test_work_on_buffers_takes_as_long_as_they_are_large():
    """Of every rank and in every step another size; 1 s for every 10¹² numbers of 4 bytes."""
    work = sim.Model("adding", MODEL.blocks, batch=64, reduce=sim.Flops(1.0))
    chip = sim.Device("chip", flops=1e12)

    def says(me: sim.Rank, step: int) -> Iterable[Instruction]:
        for name in ("a", "b"):
            size = 4e12 * (me.at("data") + 1) * (step + 1)
            yield sim.Compute(nothing, (Params(0),), (Named(name),), sizes=(size,))
        yield sim.Reduce(Named("a"), Named("b"))

    run = sim.simulate(Own(says), work, sim.cluster("ideal", ranks=4, device=chip), steps=3)
    adding = {(span.rank, span.step): span.end - span.start for span in run.spans if span.instruction[:6] == "Reduce"}
    assert adding == {(rank, step): pytest.approx((rank + 1) * (step + 1)) for rank in range(4) for step in range(3)}
