"""Wrong programs are found before any machine runs, and the error shows the grid with the bad step marked."""

from __future__ import annotations

import re

import pytest
from common.saying import G0, G1, MEAN, P0, Live, error_of, marked, say

import simulator as sim
from simulator import (
    AllGather,
    AllReduce,
    Backward,
    Broadcast,
    Chunk,
    Copy,
    Forward,
    Free,
    Grads,
    Instruction,
    Load,
    Named,
    Params,
    Recv,
    Reduce,
    Send,
    Start,
    Until,
    Update,
    Wait,
)

# ---------------------------------------------------------------- hazards


@pytest.mark.parametrize(
    "start, touch, value",
    [
        (MEAN, Update(P0), G0),
        (MEAN, Free(G0), G0),
        (MEAN, Reduce(G0, Named("arrived")), G0),
        (MEAN, Copy(G0, Named("copy")), G0),
        (AllReduce(Grads((0, 1))), Update(Params(1)), G1),
        (AllGather(P0), Forward(0), P0),
        (AllReduce(Chunk(G0, 0, 2)), Update(P0), G0),
        (AllReduce(Chunk(G0, 0, 2)), Reduce(Chunk(G0, 1, 3), Named("arrived")), Chunk(G0, 1, 3)),
        (Send(P0, to=0), Update(P0), P0),
        (MEAN, Start(AllReduce(G0, op="sum"), on="other"), G0),
        (MEAN, Start((Load(), Free(G0)), on="other"), G0),
    ],
    ids=str,
)
def test_touching_a_value_in_flight_is_an_error(start: Instruction, touch: Instruction, value: sim.Value):
    text = error_of(say((Start(start, on="x"), touch, Wait())))
    assert f"touches {value}, which is in flight on stream 'x' ({start}): put a Wait({value}) before it" in text
    assert marked(text) == [str(touch)] * 2


@pytest.mark.parametrize(
    "text",
    [
        (Start(MEAN, on="x"), Wait(), Update(P0)),
        (Start(MEAN, on="x"), Wait(G0), Update(P0)),
        (Start(MEAN, on="x"), Update(Params(1)), Wait()),
        (Start(MEAN, on="x"), Start(AllReduce(G0), on="x"), Wait()),
        (Start((MEAN, Update(P0)), on="x"), Wait(P0), Forward(0)),
        (Start(AllReduce(Chunk(G0, 0, 2)), on="x"), Reduce(Chunk(G0, 1, 2), Named("a")), Wait()),
        (Start(AllGather(P0), on="x"), Wait(P0), Start(AllGather(Params(1)), on="x"), Forward(0), Wait()),
    ],
    ids=lambda text: "; ".join(map(str, text)),
)
def test_what_is_waited_for_may_be_touched(text: tuple[Instruction, ...]):
    sim.validate(say(text), ranks=2)


def test_a_wait_for_another_value_does_not_help():
    text = error_of(say((Start(MEAN, on="x"), Start(AllReduce(G1), on="x"), Wait(G1), Update(P0))))
    assert "touches Grads(0)" in text and marked(text) == ["Update Params(0)"] * 2


def test_only_the_ranks_at_fault_are_marked():
    right, wrong = (Start(MEAN, on="x"), Wait(), Update(P0)), (Start(MEAN, on="x"), Update(P0), Wait())
    text = error_of(say(right, wrong), ranks=3)
    assert marked(text) == ["Update Params(0)"] * 2
    assert all(line.split("|")[1].find(">>") < 0 for line in text.splitlines()[1:])


def test_a_layer_nearer_the_instructions_may_not_be_overtaken():
    """A server's gradients go out while the replicas' all-reduce is under way: the layer never sees the Send."""
    text = error_of(sim.stack(sim.ParameterServer(), sim.DataParallel(replicas=2)), ranks=6)
    assert "in flight on stream 'data'" in text and set(marked(text)) == {"Send Grads(0..5)[0/1] to ps 0"}


def test_a_program_that_uses_results_is_checked_while_it_runs():
    text = error_of(Live(texts=((Start(MEAN, on="x"), Update(P0), Wait()),)))
    assert "put a Wait(Grads(0)) before it" in text and "Update Params(0)" in marked(text)


# ---------------------------------------------------------------- deadlocks


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_all_wait_for_their_neighbour(ranks: int):
    texts = [(Load(), Recv(G0, source=(r + 1) % ranks), Send(G0, to=(r - 1) % ranks)) for r in range(ranks)]
    text = error_of(say(*texts), ranks)
    assert text.startswith("deadlock") and "rank 0 waits at Recv Grads(0) from world 1" in text
    assert marked(text) == [f"Recv Grads(0) from world {(r + 1) % ranks}" for r in range(ranks)]
    assert text.count("Send Grads(0)") == ranks  # what they never reached is shown as well


@pytest.mark.parametrize(
    "texts, stuck",
    [
        (((Recv(G0, source=1),), (Load(),)), ["Recv Grads(0) from world 1"]),
        (((MEAN, MEAN), (MEAN,)), ["AllReduce Grads(0) over world"]),
        (((MEAN, Recv(G0, source=1)), (Send(G0, to=0), MEAN, MEAN)), ["AllReduce Grads(0) over world"]),
        (((Recv(G0, source=sim.ANY),), (Load(),)), ["Recv Grads(0) from any"]),
        (((Start(MEAN, on="x"), Wait()), (Start(MEAN, on="y"), Wait())), ["Wait", "Wait"]),
        (((Start(Recv(G0, source=1), on="x"), Wait(G0)), (Load(),)), ["Wait Grads(0)"]),
        (((sim.Until(Recv(P0, source=1), Load()),), (Load(),)), ["Until Recv Params(0) from world 1: Load mb0"]),
    ],
)
def test_who_cannot_go_on_is_marked(texts: tuple[tuple[Instruction, ...], ...], stuck: list[str]):
    text = error_of(say(*texts))
    assert text.startswith("deadlock: no rank can go on") and marked(text) == stuck


def test_a_sub_program_may_receive_and_go_on():
    """What a Recv gives the program must not confuse one that uses no results."""
    parts = (Recv(G0, source=1, into=Named("arrived")), Reduce(G0, Named("arrived")), Send(G0, to=1))
    sim.validate(say((Start(parts, on="x"), Wait()), (Send(G0, to=0), Recv(G0, source=0))), ranks=2)


@pytest.mark.parametrize("what", [MEAN, Recv(G0, source=1)], ids=str)
def test_what_is_started_and_never_ends_is_marked(what: Instruction):
    """Nobody waits for it here, but a real rank would, at its end."""
    text = error_of(say((Start(what, on="x"), Load()), (Load(),)))
    assert f"rank 0 waits at {what} on stream 'x'" in text
    assert marked(text) == [f"Start {what} on x"]


# ---------------------------------------------------------------- collectives and messages that do not match


@pytest.mark.parametrize(
    "other", [AllGather(G0), AllReduce(G1), AllReduce(Grads((0, 1))), AllReduce(G0, op="sum")], ids=repr
)
def test_mismatched_collectives(other: sim.Collective):
    text = error_of(say((Load(), MEAN), (other,)))
    assert "the same collectives in the same order" in text and "rank 1" in text and "rank 0" in text
    assert marked(text) == [str(other), str(MEAN)]
    text = error_of(say((Start(MEAN, on="x"), Wait()), (Start(other, on="x"), Wait())))
    assert "the same collectives in the same order" in text and len(marked(text)) == 2


def test_mismatched_collectives_that_nobody_waits_for():
    text = error_of(say((Start(MEAN, on="x"), Load()), (Start(AllGather(G0), on="x"), Load())))
    assert marked(text) == ["Start AllReduce Grads(0) over world on x", "Start AllGather Grads(0) over world on x"]


def test_the_one_at_fault_is_shown_among_many():
    text = error_of(say(*([(MEAN,)] * 11), (AllGather(G0),)), ranks=12)
    assert "rank 11 calls AllGather" in text and ">> AllGather" in text and "more ranks" in text


def test_a_message_that_nobody_takes():
    text = error_of(say((Load(), Send(G0, to=1)), (Load(),)))
    assert "every Send needs a Recv; rank 1 never takes Grads(0), which rank 0 sent" in text
    assert marked(text) == ["Send Grads(0) to world 1"]


def test_a_message_of_another_name():
    text = error_of(say((Send(G0, to=1),), (Load(), Recv(G1, source=0))))
    assert "rank 1 waits at Recv Grads(1) from world 0" in text
    assert "messages are matched by name, and it has been sent Grads(0) from rank 0" in text
    assert marked(text) == ["Recv Grads(1) from world 0"]


@pytest.mark.parametrize(
    "what, message",
    [
        (Send(G0, to=5), "has positions 0 to 1; got to=5"),
        (Send(G0, to=0, over="nowhere"), "the rank grid has the axes all, world; got 'nowhere'"),
        (AllReduce(G0, over="nowhere"), "the rank grid has the axes all, world; got 'nowhere'"),
        (Recv(G0, source=9), "has positions 0 to 1; got source=9"),
    ],
    ids=repr,
)
def test_places_that_do_not_exist(what: Instruction, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        sim.validate(say((what,)), ranks=2)


# ---------------------------------------------------------------- parameters that were let go

OWN = Chunk(P0, 0, 2)


@pytest.mark.parametrize(
    "text, used",
    [
        ((Free(P0), Forward(0)), "Params(0)"),
        ((Free(P0), Backward(0)), "Params(0)"),
        ((Free(P0), Update(P0)), "Params(0)"),
        ((Free(P0), Update(OWN)), "Params(0)[0/2]"),
        ((Free(P0), Send(P0, to=1)), "Params(0)"),
        ((Free(P0), AllReduce(P0)), "Params(0)"),
        ((Free(P0), Copy(P0, Named("kept"))), "Params(0)"),
        ((Free(Params((0, 1)), keep=Chunk(Params((0, 1)), 0, 2)), Forward(1)), "Params(1)"),
        ((Free(P0, keep=OWN), AllGather(P0), Forward(0), Free(P0, keep=OWN), Forward(0)), "Params(0)"),
        ((Free(P0), Start((AllReduce(G0), Update(P0)), on="x")), "Params(0)"),
        ((Free(P0), Until(Recv(G0, source=1), (Forward(0),))), "Params(0)"),
    ],
    ids=lambda what: what if isinstance(what, str) else "; ".join(map(str, what)),
)
def test_what_was_let_go_is_not_used(text, used):
    assert f"uses {used}, which was let go" in error_of(Live(texts=(text,)))


@pytest.mark.parametrize(
    "text",
    [
        (Free(P0, keep=OWN), AllGather(P0), Forward(0)),
        (Free(P0, keep=OWN), Start(AllGather(P0), on="x"), Wait(P0), Forward(0)),
        (Free(P0, keep=OWN), Update(OWN), AllGather(P0), Forward(0)),
        (Free(P0), Broadcast(P0), Forward(0)),
        (Copy(P0, Named("kept")), Free(P0), Copy(Named("kept"), P0), Forward(0)),
        (Free(G0), AllReduce(G0)),
    ],
    ids=lambda text: "; ".join(map(str, text)),
)
def test_what_came_back_is_used_again(text):
    sim.validate(say(text), ranks=2)
    sim.validate(Live(texts=(text,)), ranks=2)
