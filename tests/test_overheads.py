"""What real machines add: the sender's time, the receiver's readiness, the operating system's delays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from common.saying import G0, P0, Live, marked

import simulator as sim
from simulator.values import Params

LATENCY, BANDWIDTH, SIZE = 0.5, 100.0, 400.0  # s, B/s, B


@dataclass(frozen=True)
class OneMessage(sim.Order):
    """Rank 0 sends after ``sender`` seconds, rank 1 receives after ``receiver`` seconds."""

    sender: float = 0.0
    receiver: float = 0.0

    def program(self, me):
        value = Params(me.blocks)
        for _ in me.steps():
            if me.rank == 0:
                yield sim.Compute(len, seconds=self.sender)
                yield sim.Send(value, to=1)
            else:
                yield sim.Compute(len, seconds=self.receiver)
                yield sim.Recv(value, source=0)

    axis = "pair"


def took(order: sim.Order, seed: int = 0, **overheads: object) -> float:
    """Seconds until the message is there."""
    cluster = sim.Cluster.flat(2, BANDWIDTH, LATENCY, overheads=sim.Overheads(**overheads))  # type: ignore[arg-type]
    model = sim.Model.of_times(blocks=1, parameters=int(SIZE) // 4)
    return sim.simulate(order, model, cluster, steps=1, seed=seed).makespan


def test_without_overheads_a_message_takes_latency_and_bytes_over_bandwidth():
    assert took(OneMessage()) == pytest.approx(LATENCY + SIZE / BANDWIDTH, rel=1e-12)
    assert took(OneMessage(receiver=100.0)) == pytest.approx(100.0, rel=1e-12)  # it has been waiting


def test_in_a_rendezvous_who_waits_late_pays_one_latency_more():
    one_way = LATENCY + SIZE / BANDWIDTH
    assert took(OneMessage(sender=3.0), rendezvous=True) == pytest.approx(3.0 + one_way, rel=1e-12)
    assert took(OneMessage(receiver=3.0), rendezvous=True) == pytest.approx(3.0 + LATENCY + one_way, rel=1e-12)


def test_a_send_takes_the_time_of_its_sender():
    spent = took(OneMessage(), message=2.0, message_byte=0.01)
    assert spent == pytest.approx(2.0 + SIZE * 0.01 + LATENCY + SIZE / BANDWIDTH, rel=1e-12)


def test_what_a_send_takes_longer_is_drawn_and_delays_its_sender():
    drawn = {took(OneMessage(), send_delays=(0.0, 7.0), message=2.0, seed=seed) for seed in range(24)}
    quick = 2.0 + LATENCY + SIZE / BANDWIDTH
    assert sorted(drawn) == pytest.approx([quick, quick + 7.0], rel=1e-12)


@pytest.mark.parametrize("sender, receiver, extra", [(3.0, 0.0, 0.0), (0.0, 3.0, LATENCY + 5.0)])
def test_a_message_has_delays_of_its_own_where_its_receiver_comes_late(sender: float, receiver: float, extra: float):
    late = took(OneMessage(sender, receiver), rendezvous=True, message_delays=(0.0,), late_delays=(5.0,))
    assert late == pytest.approx(3.0 + LATENCY + SIZE / BANDWIDTH + extra, rel=1e-12)
    assert took(OneMessage(0.0, 3.0), rendezvous=True, message_delays=(5.0,)) == pytest.approx(
        3.0 + 2 * LATENCY + SIZE / BANDWIDTH + 5.0, rel=1e-12
    )  # as otherwise, where nothing else is said


@dataclass(frozen=True)
class BothSend(sim.Order):
    """Two ranks send to each other, rank 1 after ``later`` seconds."""

    later: float = 0.0

    def program(self, me):
        value = Params(me.blocks)
        for _ in me.steps():
            yield sim.Compute(len, seconds=self.later * me.rank)
            yield sim.Send(value, to=1 - me.rank)
            yield sim.Recv(value, source=1 - me.rank)

    axis = "pair"


@pytest.mark.parametrize("later, sends", [(0.0, [2.0, 7.0]), (1.0, [2.0, 7.0]), (2.5, [2.0, 2.0])])
def test_one_of_two_sends_that_cross_has_delays_of_its_own(later: float, sends: list[float]):
    overheads = sim.Overheads(message=2.0, send_delays=(0.0,), crossed_delays=(5.0,), rendezvous=True)
    cluster = sim.Cluster.flat(2, BANDWIDTH, LATENCY, overheads=overheads)
    run = sim.simulate(BothSend(later), sim.Model.of_times(blocks=1, parameters=100), cluster, steps=1)
    assert sorted(s.end - s.start for s in run.spans if s.stream.startswith("to")) == pytest.approx(sends, rel=1e-12)


def test_delays_are_drawn_with_the_seed_and_keep_messages_in_order():
    delays = dict(message_delays=(0.0, 7.0), collective_delays=(0.0, 3.0))
    cluster = sim.Cluster.flat(2, BANDWIDTH, LATENCY, overheads=sim.Overheads(**delays))  # type: ignore[arg-type]
    model = sim.Model.of_times(blocks=2, parameters=100, activation_bytes=8)
    strategy = sim.Pipeline("gpipe", microbatches=8)
    runs = [sim.simulate(strategy, model, cluster, steps=3, seed=seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    assert runs[0].instructions == sim.simulate(strategy, model, sim.cluster("ideal", ranks=2), steps=3).instructions
    data = sim.simulate(sim.DataParallel(), model, cluster, steps=20)
    assert {round(time, 9) for time in np.diff(data.step_times)} - {0.0} <= {3.0, -3.0}
    assert len(set(np.round(data.step_times, 9))) == 2


@pytest.mark.parametrize(
    "strategy",
    [
        sim.ParameterServer(servers=2),
        sim.ParameterServer(mode="async"),
        sim.ParameterServer(mode="ssp", bound=1),
        sim.ParameterServer(backups=1),
        sim.Pipeline("1f1b", microbatches=4),
    ],
    ids=str,
)
def test_every_strategy_ends_in_a_rendezvous_too(strategy):
    delays = dict(send_delays=(0.0, 0.25), message_delays=(0.0, 0.5, 2.0))
    overheads = sim.Overheads(rendezvous=True, message=0.01, **delays)  # type: ignore[arg-type]
    cluster = sim.Cluster.flat(4, BANDWIDTH, LATENCY, overheads=overheads)
    model = sim.Model.of_times(blocks=4, parameters=100, activation_bytes=8)
    run = sim.simulate(strategy, model, cluster, steps=5, noise=sim.noise.exponential())
    ideal = sim.simulate(strategy, model, sim.cluster("ideal", ranks=4), steps=5, noise=sim.noise.exponential())
    assert run.makespan > ideal.makespan


@pytest.mark.parametrize("overheads", [sim.Overheads(), sim.Overheads(rendezvous=True)], ids=["eager", "rendezvous"])
def test_a_message_that_nobody_takes_is_an_error_on_every_cluster(overheads):
    cluster = sim.Cluster.flat(2, BANDWIDTH, LATENCY, overheads=overheads)
    model = sim.Model.of_times(blocks=1, parameters=100)
    silent = Live(texts=((sim.Send(G0, to=1),), ()))
    with pytest.raises(sim.ProgramError, match=r"rank 1 never takes Grads\(0\), which rank 0 sent") as caught:
        sim.simulate(silent, model, cluster, steps=1)
    assert marked(str(caught.value)) == ["Send Grads(0) to world 1"]
    mistaken = Live(texts=((sim.Send(G0, to=1),), (sim.Recv(P0, source=0),)))
    with pytest.raises(sim.ProgramError, match=r"it has been sent Grads\(0\) from rank 0"):
        sim.simulate(mistaken, model, cluster, steps=1)
