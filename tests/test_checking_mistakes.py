"""Mistakes are errors that say what to do, and layers see every instruction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
from common.saying import G0, MEAN, P0, Live, error_of, marked, say

import lab
import simulator as sim
from simulator import (
    AllReduce,
    Chunk,
    Forward,
    Free,
    Grads,
    Instruction,
    Load,
    Recv,
    Send,
    Start,
    Update,
    Wait,
)
from simulator.strategy import Strategy

# ---------------------------------------------------------------- instructions that somebody does not know


@dataclass(frozen=True)
class BackwardWeight(Instruction):
    """Half a backward pass: a new instruction, that makes gradients."""

    makes: ClassVar[tuple[type[sim.Value], ...]] = (Grads,)
    block: int

    @property
    def writes(self) -> tuple[sim.Value, ...]:
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
        (lambda: Send(G0, to="x"), "to is a position along an axis, .*; got to='x'"),  # type: ignore[arg-type]
        (lambda: Send(G0, to=-1), "got to=-1"),
        (lambda: Send(G0, to=True), "got to=True"),
        (lambda: Send(G0, to=0, over=3), r"over is the name of an axis .*\"data\".*; got over=3"),  # type: ignore[arg-type]
        (lambda: Send(G0, to=0, version="x"), "version is a whole number"),  # type: ignore[arg-type]
        (lambda: Recv(G0, source="x"), "source is a position .*, or ANY; got source='x'"),  # type: ignore[arg-type]
        (lambda: Recv(G0, source=-2), "or ANY; got source=-2"),
        (lambda: Recv(G0, source=0, into="x"), "into is the name of a value"),  # type: ignore[arg-type]
        (lambda: AllReduce(G0, over=3), "over is the name of an axis .*; got over=3"),  # type: ignore[arg-type]
        (lambda: sim.Barrier(over=None), "over is the name of an axis .*; got over=None"),  # type: ignore[arg-type]
        (lambda: sim.Broadcast(G0, root="x"), "root is a position along an axis"),  # type: ignore[arg-type]
        (lambda: sim.AllGather(G0, into="x"), "into is the name of a value"),  # type: ignore[arg-type]
        (lambda: sim.ReduceScatter(G0, into="x"), "into is the name of a value"),  # type: ignore[arg-type]
        (lambda: sim.AllGather(G0, ragged="no"), "ragged is True or False"),  # type: ignore[arg-type]
        (lambda: sim.Reduce(P0, G0, scale="x"), "scale is a finite number"),  # type: ignore[arg-type]
        (lambda: sim.Reduce(P0, G0, scale=float("nan")), "scale is a finite number"),
        (lambda: Update(P0, staleness="x"), "staleness is a whole number"),  # type: ignore[arg-type]
        (lambda: sim.Record("loss", "x"), "value is a number"),  # type: ignore[arg-type]
        (lambda: sim.Record(3, 1.0), "name is what a number is called"),  # type: ignore[arg-type]
        (lambda: sim.Measure(3, print), "name is what a number is called"),  # type: ignore[arg-type]
        (lambda: sim.Compute(print, G0, P0, sizes=("x",)), "sizes is a finite number, at least 0"),  # type: ignore[arg-type]
        (lambda: sim.Compute(print, G0, P0, sizes=8.0), "sizes is a tuple of the bytes"),  # type: ignore[arg-type]
        (lambda: sim.Compute(print, G0, P0, sizes=(1.0, 2.0)), r"got sizes=\[1.0, 2.0\] for 1 write"),
        (lambda: sim.Compute(print, G0, P0, work=5), "work says how long something takes.*; got work=5"),  # type: ignore[arg-type]
        (lambda: Start(5, on="y"), "what is an instruction, or several"),  # type: ignore[arg-type]
        (lambda: sim.Named([]), "name is a text"),  # type: ignore[arg-type]
        (lambda: sim.Named("sent", []), "key has a hash: give a number"),  # type: ignore[arg-type]
        (lambda: sim.Replicated("x", "tensor"), "value is Params or Grads"),  # type: ignore[arg-type]
        (lambda: sim.Replicated(G0, 3), "over is the name of an axis"),  # type: ignore[arg-type]
        (lambda: sim.Ahead(G0, 1), "value is inputs or targets"),  # type: ignore[arg-type]
        (lambda: sim.Ahead(sim.Act(0), -1), "step is a whole number"),
        (lambda: sim.Nothing("x"), "instead is the name of a value"),  # type: ignore[arg-type]
        (lambda: sim.validate(say((Send(sim.Act("x"), to=0),)), 2), "Act: block is a whole number"),  # type: ignore[arg-type]
        (lambda: sim.validate(say((Send(sim.Act(-1), to=0),)), 2), "Act: block is a whole number"),
        (lambda: sim.validate(say((Send(sim.ActGrad(0, -1), to=0),)), 2), "ActGrad: microbatch is a whole number"),
        (lambda: sim.validate(say((Send(G0, to=2),)), 2), "0 to 1; got to=2 in Send .* on rank 0"),
        (lambda: sim.validate(say((Start(Recv(G0, source=2), on="x"),)), 2), "0 to 1; got source=2"),
        (lambda: sim.validate(sim.stack(sim.DataParallel(), sim.RingAllReduce("dta")), 2), "data, world; got 'dta'"),
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
        (lambda: sim.listing(sim.Single(), workload="digits"), "a workload is a Model .timed. or a Problem"),  # type: ignore[arg-type]
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


STRATEGIES = [kind for kind in vars(sim).values() if isinstance(kind, type) and issubclass(kind, Strategy)]
NEEDED = {
    sim.AllReduceBy: lambda **knobs: sim.AllReduceBy(print, **knobs),
    sim.Compressed: lambda **knobs: sim.Compressed(sim.compression.FP16(), **knobs),
    sim.Shares: lambda **knobs: sim.Shares((1.0, 2.0), **knobs),
}
"""How those are made that need a knob."""


@pytest.mark.parametrize("kind", STRATEGIES, ids=lambda kind: kind.__name__)
def test_a_strategy_refuses_what_is_no_rule_as_soon_as_it_is_made(kind: type[Strategy]):
    with pytest.raises(ValueError, match=r"rule is one of simulator\.rules.*got rule='sgd'"):
        NEEDED.get(kind, kind)(rule="sgd")


def test_errors_show_strategies_as_they_are_written():
    assert repr(sim.Pipeline("gpipe", 2)) == "Pipeline(schedule='gpipe', microbatches=2)"
    assert repr(say()) == "Say()" and repr([sim.DataParallel(replicas=2)]) == "[DataParallel(replicas=2)]"


def test_lists_are_taken_where_several_are_meant():
    assert sim.Compute(print, reads=[G0], writes=P0) == sim.Compute(print, (G0,), (P0,))
    assert hash(sim.rules.Adam(betas=[0.9, 0.99])) == hash(sim.rules.Adam(betas=(0.9, 0.99)))  # type: ignore[arg-type]


@dataclass
class Thawed:
    """Maths with numbers that may change, so without a hash."""

    factor: float = 2.0

    def __call__(self, tensor):
        return tensor * self.factor


@pytest.mark.parametrize(
    "make",
    [
        lambda: sim.Compute(Thawed(), G0, G0),
        lambda: sim.Measure("norm", Thawed(), G0),
        lambda: sim.Compute(print, G0, G0, sizes=[8.0]),
        lambda: sim.Compute(print, G0, G0, work=sim.Measured([(1.0, 2.0)])),
    ],
    ids=["function", "measure", "sizes", "work"],
)
def test_maths_that_cannot_be_compared_is_refused_where_it_is_written(make):
    """Rule 6 of the language: a Compute is the same where its function is."""
    with pytest.raises(ValueError, match=r"so (function|sizes|work) has a hash: give .*; got"):
        make()


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
