"""The wall clock beside the laws of its programs: errors on streams, how long ranks wait, clocks that differ."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import cloudpickle
import pytest
import torch

import lab
import simulator as sim
from lab.board import Board
from lab.launch import run_ranks
from lab.place import Place, backend_of, claimed_device
from lab.transport import MOST_SENDS
from simulator import AllGather, Compute, Named, Recv, Send, Start, Wait
from simulator.errors import RankError

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # however pytest has imported this file
PROBLEM = sim.problem("quadratic")
X, Y = Named("x"), Named("y")


def zeros() -> torch.Tensor:
    return torch.zeros(2)


def broken() -> None:
    time.sleep(0.2)
    raise ZeroDivisionError("of nothing")


def nap() -> None:
    time.sleep(0.02)


# ---------------------------------------------------------------- errors on streams


@dataclass(frozen=True)
class Broken(sim.Order):
    """A stream of rank 0 fails while its program computes, or waits for the rank that waits for the stream."""

    axis: ClassVar[str | None] = "all"
    waiting: bool = False

    def program(self, me: sim.Rank) -> sim.Program:
        for _ in me.steps():
            yield Compute(zeros, writes=X)
            yield Compute(zeros, writes=Y)
            if me.rank == 0:
                yield Start([Compute(broken), Send(X, to=1, over="all")], on="side")
                for _ in range(0 if self.waiting else 50):
                    yield Compute(nap)
                yield Recv(Y, source=1, over="all")
                yield Wait()
            else:
                yield Recv(X, source=0, over="all")
                yield Send(Y, to=0, over="all")


@pytest.mark.parametrize("waiting", [False, True])
def test_what_a_stream_raised_is_told_whatever_its_program_does(waiting: bool):
    lab.execute(sim.DataParallel(), PROBLEM, ranks=2, steps=1, progress=False)  # fresh ranks take long to load it all
    with pytest.raises(RankError) as caught:
        lab.execute(Broken(waiting), PROBLEM, ranks=2, steps=1, timeout=6.0, progress=False)
    assert (caught.value.rank, caught.value.step) == (0, 0)
    assert caught.value.instruction == "Compute broken on stream 'side' raised ZeroDivisionError: of nothing"


@dataclass(frozen=True)
class Crowded(sim.Order):
    """A stream sends more than may be on its way, to a rank that first takes something else from its program."""

    axis: ClassVar[str | None] = "all"

    def program(self, me: sim.Rank) -> sim.Program:
        many = MOST_SENDS + 50
        for _ in me.steps():
            yield Compute(zeros, writes=X)
            yield Compute(zeros, writes=Y)
            if me.rank == 0:
                yield Start([Send(X, to=1, over="all")] * many, on="side")
                yield Recv(Y, source=1, over="all")
                yield Send(Y, to=1, over="all")
                yield Wait()
            else:
                for _ in range(10):  # meanwhile the stream comes to its limit
                    yield Compute(nap)
                yield Send(Y, to=0, over="all")
                yield Recv(Y, source=0, over="all")
                for _ in range(many):
                    yield Recv(X, source=0, over="all")


def test_a_stream_that_waits_for_room_holds_up_no_other():
    run = lab.execute(Crowded(), PROBLEM, ranks=2, steps=1, timeout=15.0, progress=False)
    assert list(run.bytes_sent) == [8.0 * (MOST_SENDS + 50 + 1), 8.0]


# ---------------------------------------------------------------- how long, and when


def test_ranks_wait_for_each_other_for_as_long_as_their_parent_lets_them():
    def patience(place: Place) -> list[float]:
        from lab.groups import group_of, waiting_time

        group = group_of("a stream", (0, 1), place.rank, place.device)
        return [waiting_time().total_seconds(), group.options._timeout.total_seconds()]

    assert min(map(min, run_ranks(patience, 2, timeout=1.0))) > 3600


@pytest.mark.parametrize("apart", [0.0, 100.0])
def test_ranks_whose_clocks_differ_agree_on_a_zero_to_their_error(apart: float):
    def agreed(place: Place) -> tuple[float, float]:
        from lab import clocks

        plain = clocks.time
        clocks.time = SimpleNamespace(monotonic=lambda: plain.monotonic() + apart * place.rank)
        try:
            clock = clocks.agree(place.rank, place.ranks)
        finally:
            clocks.time = plain
        return clock.zero - apart * place.rank, clock.error

    zeros, errors = zip(*run_ranks(agreed, 3))
    assert len(set(errors)) == 1 and 0 < errors[0] < 1
    assert max(zeros) - min(zeros) <= (errors[0] + 1e-9 if apart else 0.0)


# ---------------------------------------------------------------- what is counted


@dataclass(frozen=True)
class Ones:
    """So many rows of three numbers."""

    rows: int

    def __call__(self) -> torch.Tensor:
        return torch.ones(self.rows, 3, dtype=torch.float64)


@dataclass(frozen=True)
class Ragged(sim.Order):
    """Rank r brings r rows, the first rank none."""

    axis: ClassVar[str | None] = "all"

    def program(self, me: sim.Rank) -> sim.Program:
        for _ in me.steps():
            yield Compute(Ones(me.rank), writes=X)
            yield AllGather(X, over="all", into=Y, ragged=True)


def test_who_brings_nothing_to_a_ring_passes_on_what_others_bring():
    """Everybody sends all but what its successor brought: of 0, 24 and 48 bytes."""
    real = lab.execute(Ragged(), PROBLEM, ranks=3, steps=1, progress=False)
    virtual = sim.simulate(Ragged(), PROBLEM, sim.cluster("ideal", ranks=3), steps=1)
    assert list(real.bytes_sent) == list(virtual.bytes_sent) == [48.0, 24.0, 72.0]


# ---------------------------------------------------------------- GPUs, which are made believe


def test_a_rank_takes_a_gpu_where_each_has_one_and_waits_for_its_own_stream_alone(monkeypatch):
    """Not for the whole GPU: what goes on beside a computation, and may wait for another rank, is no part of it."""
    called: list[object] = []
    stream = SimpleNamespace(synchronize=lambda: called.append("synchronised"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", called.append)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: called.append(device) or stream)
    assert (claimed_device(1, 2), claimed_device(0, 3)) == ("cuda:1", "cpu")
    place = Place(1, 2, "cuda:1", Board.private())
    place.enter()
    place.synchronise()
    assert called == [1, "cuda:1", "cuda:1", "synchronised"]
    assert (backend_of("cuda:1"), backend_of("cpu")) == ("cpu:gloo,cuda:nccl", "gloo")
