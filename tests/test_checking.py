"""Wrong programs are found before any machine runs, and the error shows the grid with the bad step marked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest

import lab
import simulator as sim
from simulator import (
    AllGather,
    AllReduce,
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
    Update,
    Wait,
)

G0, G1, P0 = Grads(0), Grads(1), Params(0)
MEAN = AllReduce(G0)


@dataclass(frozen=True)
class Say(sim.Order):
    """What each rank says; where there are more ranks than texts, the last is said by all that are left."""

    axis: ClassVar[str | None] = "all"
    texts: tuple[tuple[Instruction, ...], ...] = ()

    def program(self, me: sim.Rank) -> sim.Program:
        for instruction in self.texts[min(me.rank, len(self.texts) - 1)]:  # noqa: UP028 - some give results
            yield instruction


@dataclass(frozen=True)
class Live(Say):
    """The same, but checked while it runs, as if it used results."""

    static: ClassVar[bool] = False  # type: ignore[assignment]


def say(*texts: tuple[Instruction, ...]) -> Say:
    """A strategy of these texts."""
    return Say(texts=texts)


def error_of(strategy: sim.Order, ranks: int = 2) -> str:
    """The text of the error that validating raises."""
    with pytest.raises(sim.ProgramError) as caught:
        sim.validate(strategy, ranks)
    return str(caught.value)


def marked(text: str) -> list[str]:
    """The cells of the grid with a mark."""
    return [cell.strip()[3:] for line in text.splitlines() for cell in line.split("|") if ">> " in cell]


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
        (Send(G0, to=5), "has positions 0 to 1; got 5"),
        (Send(G0, to=0, over="nowhere"), "the rank grid has the axes all, world; got 'nowhere'"),
        (AllReduce(G0, over="nowhere"), "the rank grid has the axes all, world; got 'nowhere'"),
        (Recv(G0, source=9), "has positions 0 to 1; got 9"),
    ],
    ids=repr,
)
def test_places_that_do_not_exist(what: Instruction, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        sim.validate(say((what,)), ranks=2)


# ---------------------------------------------------------------- instructions that somebody does not know


@dataclass(frozen=True)
class BackwardWeight(Instruction):
    """Half a backward pass: a new instruction, that makes gradients."""

    makes: ClassVar[tuple[type[sim.Value], ...]] = (Grads,)
    block: int

    @property
    def writes(self) -> tuple[sim.Value, ...]:  # type: ignore[override]
        return (Grads(self.block),)


@pytest.mark.parametrize("what", [BackwardWeight(0), Start(BackwardWeight(0), on="x")], ids=["bare", "started"])
def test_a_layer_refuses_what_it_ought_to_know(what: Instruction):
    with pytest.raises(ValueError, match=r"DataParallel has no rule for BackwardWeight.*give DataParallel\.rules"):
        sim.validate(sim.stack(say((what, Wait())), sim.DataParallel()), ranks=2)


def test_a_layer_lets_pass_what_does_not_concern_it():
    @dataclass(frozen=True)
    class Note(Instruction):
        """Makes nothing."""

    @dataclass(frozen=True)
    class Erase(sim.Layer):
        """Stands nearest the machine, which knows no Note."""

        def rules(self, me):
            def nothing(note):
                yield from ()

            return {Note: nothing}

    sim.validate(sim.stack(say((Note(),)), sim.DataParallel(), Erase()), ranks=2)
    with pytest.raises(ValueError, match="no machine knows"):
        sim.validate(sim.stack(say((Note(),)), sim.DataParallel()), ranks=2)


def test_a_program_yields_instructions():
    with pytest.raises(ValueError, match="a program yields instructions; that of rank 0 yields 5"):
        sim.validate(say((Load(), 5)), ranks=2)  # type: ignore[arg-type]


# ---------------------------------------------------------------- where errors come from


def test_nothing_runs_before_a_program_is_checked():
    wrong, problem = say((Start(MEAN, on="x"), Update(P0), Wait())), sim.problem("digits-mlp")
    with pytest.raises(sim.ProgramError, match=">> Update"):
        sim.simulate(wrong, problem, sim.cluster("ideal", ranks=2))
    with pytest.raises(sim.ProgramError, match=">> Update"):
        lab.execute(wrong, problem, ranks=2)


def test_real_ranks_check_programs_that_use_results_while_they_run():
    problem = sim.problem("digits-mlp", hidden=8)
    wrong = Live(texts=((Load(), Start(MEAN, on="x"), Update(P0), Wait()),))
    with pytest.raises(sim.ProgramError, match=r"put a Wait\(Grads\(0\)\) before it \(rank \d, step 0\)"):
        lab.execute(wrong, problem, ranks=2, steps=1)


@pytest.mark.parametrize(
    "check",
    [
        lambda: sim.validate(sim.DataParallel(), ranks=0),
        lambda: sim.validate(sim.Single(), ranks=2),
        lambda: sim.validate(sim.ParameterServer(servers=3), ranks=3),
        lambda: sim.validate(sim.ParameterServer(backups=2), ranks=3),
        lambda: sim.validate("DataParallel", ranks=2),
        lambda: sim.stack(sim.Pipeline(), sim.Single()),
        lambda: sim.stack(sim.Single(rule=sim.rules.SGD(0.1)), sim.DataParallel(rule=sim.rules.SGD(0.2))).rule,
        lambda: sim.validate(sim.stack(sim.Pipeline(stages=2), sim.DataParallel(replicas=3)), ranks=4),
    ],
)
def test_what_does_not_fit_is_a_value_error_that_says_why(check):
    with pytest.raises(ValueError, match="got") as caught:
        check()
    assert len(str(caught.value)) > 30 and not isinstance(caught.value, sim.ProgramError)


# ---------------------------------------------------------------- mistakes of beginners


@dataclass(frozen=True)
class Rewriting(sim.Layer):
    """A layer with any table."""

    table: object = None

    def rules(self, me: sim.Rank) -> sim.Rules:
        return self.table  # type: ignore[return-value]


def over(table: object, *text: Instruction) -> sim.Stack:
    """A layer over a program."""
    return sim.stack(say(text), Rewriting(table=table))


class Fixed(sim.Order):
    """Whatever a program may be."""

    axis = "all"
    said: object = None

    def program(self, me: sim.Rank) -> sim.Program:
        return self.said  # type: ignore[return-value]


class Listed(Fixed):
    said = [Load()]  # noqa: RUF012 - so are mistakes


class Own(sim.Order):
    """A knob that is no field."""

    def __init__(self, every: int):
        self.every = every


class Asks(sim.Order):
    """Uses a message, and says that it uses none."""

    axis = "all"

    def program(self, me: sim.Rank) -> sim.Program:
        yield Send(G0, to=me.rank)
        message = yield Recv(G0, source=me.rank)
        yield Send(G0, to=message.source)


@pytest.mark.parametrize(
    "mistake, message",
    [
        (lambda: sim.stack(sim.DataParallel(), sim.DataParallel()), "two call theirs 'data'"),
        (lambda: sim.stack(sim.DataParallel(), 5), "followed by layers; got 5"),  # type: ignore[arg-type]
        (lambda: sim.stack(sim.stack(sim.Single()), sim.Single()), r"followed by layers; got Single\(\)"),  # type: ignore[arg-type]
        (lambda: sim.stack(Own(3)), "knobs are fields.*'every'"),
        (lambda: sim.stack(sim.Single(rule=0.1)), "rule is one of simulator.rules"),  # type: ignore[arg-type]
        (lambda: Start(MEAN, on="compute"), "not taken"),
        (lambda: Start(MEAN, on="to 1"), "not taken"),
        (lambda: Start(MEAN, on="until"), "not taken"),
        (lambda: Start(MEAN, on=1), "not taken"),  # type: ignore[arg-type]
        (lambda: Start(Start(MEAN, on="x"), on="y"), "starts nothing"),
        (lambda: Start([5], on="y"), "what is an instruction"),  # type: ignore[list-item]
        (lambda: sim.Until(Recv(G0, source=sim.ANY), Load()), "give its Recv a source"),
        (lambda: sim.Until(Load(), Load()), "recv is the Recv"),  # type: ignore[arg-type]
        (lambda: Forward(-1), "block is a whole number"),
        (lambda: Forward("0"), "block is a whole number"),  # type: ignore[arg-type]
        (lambda: Load(-1), "microbatch is a whole number"),
        (lambda: Grads(-1), "block is a whole number"),
        (lambda: Chunk(G0, 0, 0), "of is a whole number"),
        (lambda: Chunk(G0, 3, 2), "chunks are numbered"),
        (lambda: AllReduce("grads"), "the name of a value"),  # type: ignore[arg-type]
        (lambda: Wait("grads"), "the name of a value"),  # type: ignore[arg-type]
        (lambda: sim.Compute(5), "a function of tensors"),
        (lambda: sim.validate(say((Forward(7),)), 2), r"2 block\(s\).*got Forward 7"),
        (lambda: sim.validate(say((Start(AllReduce(Grads(2)), on="x"), Wait())), 2), r"2 block\(s\)"),
        (lambda: sim.validate(say((sim.Broadcast(G0, root=2),)), 2), "0 to 1; got root=2"),
        (lambda: sim.validate(Fixed(), 2), "use yield; Fixed.program gives None"),
        (lambda: sim.listing(Listed()), "use yield"),
        (lambda: sim.listing(say((5,))), "yields 5"),  # type: ignore[arg-type]
        (lambda: sim.listing(over({}, 5)), "yields a int"),  # type: ignore[arg-type]
        (lambda: sim.validate(Live(texts=(([Load()],),)), 2), r"that of rank 0 yields \[Load"),  # type: ignore[arg-type]
        (lambda: sim.listing(over(None, Load())), "rules gives a table.*got None"),
        (lambda: sim.listing(over({"Load": lambda load: load}, Load())), "rules gives a table"),
        (lambda: sim.listing(over({Load: lambda load: load}, Load())), "a rule yields instructions: use yield"),
        (lambda: sim.listing(sim.Single(), workload="digits"), "workload is a Model or a Problem"),  # type: ignore[arg-type]
        (lambda: sim.listing(sim.Single(), steps=0), "steps is a whole number"),
        (lambda: sim.listing(sim.Single(), steps="a"), "steps is a whole number"),  # type: ignore[arg-type]
        (lambda: sim.rules.SGD(None), "lr is a finite number"),  # type: ignore[arg-type]
        (lambda: sim.rules.Adam(betas="no"), "betas"),  # type: ignore[arg-type]
        (lambda: sim.rules.Adam(betas=None), "betas are two numbers"),  # type: ignore[arg-type]
    ],
)
def test_mistakes_are_value_errors_that_say_what_to_do(mistake: Callable[[], object], message: str):
    with pytest.raises(ValueError, match=message):
        mistake()


def test_a_program_that_asks_for_messages_is_not_static():
    with pytest.raises(sim.ProgramError, match="set static = False in Asks") as caught:
        sim.validate(Asks(), ranks=2)
    assert isinstance(caught.value.__cause__, AttributeError)


def test_errors_show_strategies_as_they_are_written():
    assert repr(sim.Pipeline("gpipe", 2)) == "Pipeline(schedule='gpipe', microbatches=2)"
    assert repr(say()) == "Say()" and repr([sim.DataParallel(replicas=2)]) == "[DataParallel(replicas=2)]"


def test_lists_are_taken_where_several_are_meant():
    assert sim.Compute(print, reads=[G0], writes=P0) == sim.Compute(print, (G0,), (P0,))
    assert hash(sim.rules.Adam(betas=[0.9, 0.99])) == hash(sim.rules.Adam(betas=(0.9, 0.99)))  # type: ignore[arg-type]


def test_a_strategy_without_an_axis_is_listed_on_one_rank():
    assert len(sim.listing(sim.Single())) == 1 and len(sim.listing(sim.DataParallel())) == 4


# ---------------------------------------------------------------- layers see everything


def twice(instruction: Instruction) -> sim.Program:
    """Notes what it sees, before and after."""
    yield sim.Record("before", 1)
    result = yield instruction
    yield sim.Record("after", 1)
    return result


def test_a_rule_for_a_kind_of_instruction_sees_all_of_that_kind():
    assert sim.listing(over({sim.Collective: twice}, MEAN), ranks=2)[0] == ("Record before", str(MEAN), "Record after")


def test_a_layer_sees_the_receive_of_an_until():
    listed = sim.listing(over({Recv: twice}, sim.Until(Recv(P0, source=1), Load())), ranks=2)
    assert listed[0] == ("Record before", "Until Recv Params(0) from world 1: Load mb0", "Record after")
    with pytest.raises(ValueError, match="an Until waits for a Recv; Rewriting replaces"):
        sim.listing(over({Recv: lambda recv: (one for one in (Load(),))}, sim.Until(Recv(P0, source=1), Load())))


def test_what_a_layer_starts_inside_a_sub_program_goes_on_in_it():
    """So that whoever waits for the sub-program waits for the average too."""
    one = sim.Model.of_times(blocks=1)
    program = sim.stack(say((Start(sim.Backward(0), on="x"), Wait(), Update(P0))), sim.DataParallel(bucket_bytes=0))
    listed = sim.listing(program, ranks=2, workload=one)
    assert listed[0][0] == "Start Backward 0 mb0; AllReduce Grads(0) over data on x"
    wrong = sim.stack(say((Start(sim.Backward(0), on="x"), Free(G0))), sim.DataParallel(bucket_bytes=0))
    with pytest.raises(sim.ProgramError, match="in flight on stream 'x'"):
        sim.validate(wrong, ranks=2, workload=one)


def test_what_an_until_starts_is_in_flight():
    late = (sim.Until(Recv(P0, source=1), (Start(MEAN, on="x"), Wait())), Free(G0))
    text = error_of(say(late, (Start(MEAN, on="x"), Wait(), Send(P0, to=0))))
    assert marked(text) == ["Free Grads(0)"]
    inside = (sim.Until(Recv(P0, source=1), (Start(MEAN, on="x"), Free(G0))), Wait())
    text = error_of(say(inside, (Start(MEAN, on="x"), Wait(), Send(P0, to=0))))
    assert "Free Grads(0) touches Grads(0), which is in flight" in text
