"""How a layer rewrites a program: each instruction is replaced by what the layer's rule for it yields."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from .errors import ProgramError
from .program import Instruction, Recv, Start, Until

if TYPE_CHECKING:
    from .rank import Rank
    from .stack import Layer

Program = Generator[Instruction, Any, Any]
Rewrite = Callable[[Any], Program]
Rules = Mapping[type[Instruction], Rewrite]
SOON = 100_000
"""By so many instructions a worker's program has begun its first step."""
MOST = 5_000_000
"""In so many it has ended another; of no text that anybody could wait for does a step have as many."""


def same(instruction: Instruction) -> Program:
    """One instruction as a program; as a rule, it leaves the instruction as it is: a layer has nothing to add."""
    yield instruction


class Table(dict[type, Rewrite | None]):
    """The rules of a layer for one rank, by the exact type of an instruction: its own, or that of its nearest base."""

    def __init__(self, layer: Layer, me: Rank):
        super().__init__()
        self.layer, self.name, self.me = layer, type(layer).__name__, me
        rules = layer.rules(me)
        if not isinstance(rules, Mapping) or not all(map(_fits, rules.keys(), rules.values())):
            raise ValueError(
                f"{self.name}.rules gives a table from instruction types to generators, as in {{Update: finish}};"
                f" got {rules!r}"
            )
        self.rules: dict[type, Rewrite] = {Start: self._start, Until: self._until, **rules}

    def __missing__(self, kind: type) -> Rewrite | None:
        """Look a type up for the first time; an unknown one that makes what the layer looks after is refused."""
        if not issubclass(kind, Instruction):
            raise ValueError(f"a program yields instructions; that of rank {self.me.rank} yields a {kind.__name__}")
        rule = self[kind] = next((self.rules[base] for base in kind.__mro__ if base in self.rules), None)
        if rule is None and any(made in self.layer.looks_after for made in kind.makes):
            raise ValueError(
                f"{self.name} has no rule for {kind.__name__}, which makes values that it looks after:"
                " if another layer says it, as TensorParallel and ExpertParallel split blocks, put that one last,"
                f" nearest the instructions; if {self.name} is your own, give {self.name}.rules a {kind.__name__}, even"
                " if only to pass it on"
            )
        return rule

    def said(self, rule: Rewrite, instruction: Instruction) -> Program:
        """What a rule puts in the place of an instruction."""
        program = rule(instruction)
        if type(program) is not GeneratorType:
            kind = type(instruction).__name__
            raise ValueError(f"a rule yields instructions: use yield; that of {self.name} for {kind} gives {program!r}")
        return program

    def _start(self, start: Start) -> Program:
        """Rewrite a sub-program; what it would start goes on in it, so that whoever waits for it waits for all."""
        inner = through(self, iter_program(start.what))
        what = [one for said in inner for one in (said.what if isinstance(said, Start) else (said,))]
        return (yield Start(what, on=start.on))

    def _until(self, until: Until) -> Program:
        """Rewrite the work and the Recv: what a rule says before and after the Recv stays before and after."""
        what = tuple(through(self, iter_program(until.what)))
        rule = self[type(until.recv)]
        if rule is None:
            return (yield Until(until.recv, what))
        program, result, waits = self.said(rule, until.recv), None, True
        while True:
            try:
                instruction = program.send(result)
            except StopIteration as end:
                if waits:
                    raise ValueError(f"an Until waits for a Recv; {self.name} replaces {until.recv} by none") from None
                return end.value
            if waits and isinstance(instruction, Recv):
                instruction, waits = Until(instruction, what), False
            result = yield instruction


def through(table: Table, program: Program) -> Program:
    """A program with each instruction replaced by what its rule yields, in sub-programs too."""
    result = None
    while True:
        try:
            instruction = program.send(result)
        except StopIteration as end:
            return end.value
        rule = table[type(instruction)]
        if rule is None:
            result = yield instruction
        else:
            result = yield from table.said(rule, instruction)


def spoken(program: Program, me: Rank) -> Program:
    """A program of which everything is an instruction; anything else is refused, and so is one that never ends."""
    result, said, limit = None, 0, SOON
    made: int | None = None
    while True:
        try:
            instruction = program.send(result)
        except StopIteration as end:
            return end.value
        if not isinstance(instruction, Instruction):
            raise ValueError(f"a program yields instructions; that of rank {me.rank} yields {instruction!r}")
        said += 1
        if said == limit:
            if stalled := me.stalled(made):
                raise ProgramError(f"{stalled} in {said:,} instructions")
            limit, made = said + MOST, me.made
        result = yield instruction


def iter_program(what: tuple[Instruction, ...]) -> Program:
    """A tuple of instructions as a program."""
    for instruction in what:  # noqa: UP028 - "yield from" would send the tuple what its Recvs give
        yield instruction


def _fits(kind: object, rule: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Instruction) and callable(rule)
