"""``memory``: how much each rank of a strategy needs, by kind, read from its program before anything runs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from types import NoneType
from typing import cast

from . import checks
from .checking import AnyStrategy
from .cluster import Cluster, check_ranks
from .folding import Programs, alike
from .footprint import Footprint, Moment
from .ledger import Ledger, Said
from .members import all_ranks
from .model import Model
from .observed import Observed, Question, load
from .operations import Operations
from .passes import Load
from .precision import WIDTH, Precision
from .problem import Problem
from .rank import Rank
from .remembering import remembered
from .rewriting import spoken
from .rules import Adam, Rule
from .stack import Stack, stack
from .values import Params, Value
from .working import Working, in_one_piece
from .workload import check_workload, model_of, rule_of


@dataclass(frozen=True)
class RankMemory:
    """What one rank holds: ``over_time``, instruction by instruction. Peaks are those after the first step.

    In the first step nothing is sharded yet and optimizers remember nothing; the last step walked is like all later.
    """

    over_time: tuple[Moment, ...]

    @cached_property
    def peak(self) -> Footprint:
        """The most of each kind, which need not be at one time [B]."""
        names = [kind.name for kind in fields(Footprint)]
        return Footprint(**{name: max(getattr(held, name) for held in self._settled) for name in names})

    @cached_property
    def most(self) -> Footprint:
        """What is held when most is held in all [B]."""
        return max(self._settled, key=lambda held: held.total)

    @property
    def _settled(self) -> list[Footprint]:
        first = min(1, max((moment.step for moment in self.over_time), default=0))
        return [moment.held for moment in self.over_time if moment.step >= first] or [Footprint()]

    def __repr__(self) -> str:
        most = self.most
        kinds = ", ".join(f"{kind.name} {getattr(most, kind.name):.4g}" for kind in fields(Footprint))
        return f"<RankMemory: at most {most.total:.4g} B ({kinds})>"


def memory(
    strategy: AnyStrategy,
    workload: Model | Problem,
    ranks: int,
    precision: Precision | None = None,
    rule: Rule | None = None,
) -> tuple[RankMemory, ...]:
    """The memory of every rank, by kind, from the text of its program.

    - ``precision``: bytes per number; None: as the strategy says (``MixedPrecision``), else one type for all.
    - ``rule``: whose memory is counted, where neither strategy nor problem name one.

    Counted are parameters, gradients, what optimizers remember (with master copies), activations from when they are
    written to when they are last read, and buffers. Not counted: what libraries need for themselves. A block keeps for
    its backward pass what enters it, or ``Block.saved_bytes``. Raises ValueError for programs that depend on what their
    instructions give: they have no text before they run.

    >>> from simulator import Sharded, rules
    >>> model = Model.of_times(blocks=10, parameters=1000)
    >>> [memory(Sharded(stage, rule=rules.Adam()), model, ranks=10)[0].most.total for stage in (1, 2, 3)]
    [8800.0, 5560.0, 2640.0]
    """
    whole = stack(strategy)
    check_workload(workload)
    checks.kind("precision", precision, (Precision, NoneType), "a Precision, such as Precision.mixed(), or None")
    checks.kind("rule", rule, (Rule, NoneType), "one of simulator.rules, such as rules.Adam(), or None")
    if isinstance(ranks, (str, Cluster)):
        raise ValueError(f"memory follows from the program alone, so ranks is their number; got {ranks}: give ranks=16")
    return read(Text(whole, model_of(workload), check_ranks(ranks), rule_of(whole, workload) or rule), precision)


@dataclass(frozen=True)
class Text:
    """All that the memory of a strategy follows from; ``told``: what all ranks say, where that was read before."""

    stack: Stack
    model: Model
    ranks: int
    rule: Rule | None
    told: Programs | None = field(default=None, compare=False, repr=False)

    def complete(self) -> Text:
        """With a rule: where nobody names one, a model that is made of operations is updated by Adam."""
        assumed = Adam() if self.rule is None and isinstance(self.model.update, Operations) else self.rule
        return replace(self, rule=assumed)

    @property
    def precision(self) -> Precision:
        """The precision that the strategy says. Without any, a rule keeps a master copy of parameters in 2 bytes."""
        reduced, width = self.stack.reduced, self.model.parameter_bytes
        if reduced is not None:
            return reduced.precision(self.model)
        return Precision.mixed() if width == WIDTH and self.rule is not None else Precision.plain(width)

    def peaks(self) -> list[float]:
        """The most bytes that each rank holds at once. Raises ValueError as ``memory`` does."""
        from .settling import settled

        return [one.most.total for one in settled(self)]

    def of(self, rank: int) -> RankMemory:
        """The memory of one rank. Raises ValueError as ``memory`` does."""
        self.ensure_static()
        return alone(self, rank)

    def ensure_static(self) -> None:
        """Raise ValueError where the program has no text before it runs."""
        if not self.stack.order.static:
            raise ValueError(
                f"memory is read from the text of a program; that of {self.stack} depends on what its instructions"
                " give: take a synchronous strategy"
            )


def alone(text: Text, rank: int = 0) -> RankMemory:
    """The memory of one rank of a program that is a text."""
    text = text.complete()
    reader = Reader(text, text.precision)
    return reader.memory(rank, reader.says(reader.rank(rank)))


@remembered(16)
def read(text: Text, precision: Precision | None = None) -> tuple[RankMemory, ...]:
    """The memory of every rank; ranks that do the same with as much are walked once."""
    text.ensure_static()
    text.stack.check(text.ranks, text.model)
    text = text.complete()
    reader = Reader(text, precision or text.precision)
    of, texts = reader.known() or alike(all_ranks(text.stack, text.ranks, reader.model, 2, text.rule), reader.asks)
    found = {rank: reader.memory(rank, said) for rank, said in texts.items()}
    return tuple(found[rank] for rank in of)


class Reader:
    """Reads the memory of single ranks."""

    def __init__(self, text: Text, precision: Precision):
        self.text, self.precision = text, precision
        self.model = text.model.evenly_routed
        self.pieces, self.layers = in_one_piece(text.stack, self.rank(0))
        self.walked: dict[Hashable, list[tuple[Said, RankMemory]]] = {}

    def rank(self, rank: int, steps: int = 2) -> Rank:
        """A rank at its beginning."""
        return Rank(self.text.stack, rank, self.text.ranks, self.model, steps, self.text.rule)

    def asks(self, me: Rank) -> tuple[Said, set[Question]]:
        """The program of a rank, and what it asks."""
        asked = Observed(self.rank(me.rank))
        return self.says(cast(Rank, asked)), asked.questions

    def known(self) -> tuple[Sequence[int], dict[int, Said]] | None:
        """As ``alike``, by what ranks are known to say; None where less is asked by that than here."""
        if self.text.told is None:
            return None
        of, asked = self.text.told.of, self.text.told.asked
        texts = {rank: self.asks(self.rank(rank)) for rank in asked}
        enough = all(questions <= asked[rank] for rank, (_, questions) in texts.items())
        return (of, {rank: said for rank, (said, _) in texts.items()}) if enough else None

    def says(self, me: Rank) -> Said:
        """The program of two steps, blocks in one piece where they say what they keep."""
        return [(me.step, instruction) for instruction in spoken(self.pieces.program(me), me)]

    def memory(self, rank: int, said: Said) -> RankMemory:
        """The memory of one rank, given its program of two steps; that of ranks that do the same is walked once."""
        me = self.rank(rank)
        if any(one.microbatch >= me.microbatches for _, one in said if isinstance(one, Load)):
            # Steps overlap: as many as there are ranks may be under way before it goes on evenly.
            said = self.says(self.rank(rank, steps=self.text.ranks + 2))
        if self.layers:  # what is done inside of a block, a rank may do in its own way
            return self._walk(me, said)
        known = self.walked.setdefault((load(me), self._begins_with(me), len(said)), [])
        found = next((memory for other, memory in known if other == said), None)
        if found is None:
            found = self._walk(me, said)
            known.append((said, found))
        return found

    def _walk(self, me: Rank, said: Said) -> RankMemory:
        working = Working(lambda: self.rank(me.rank), self.layers)
        ledger = Ledger(self.rank(me.rank), self._begins_with(me), self.precision, working)
        return RankMemory(tuple(ledger.walk(said)))

    def _begins_with(self, me: Rank) -> tuple[Value, ...]:
        """The parameters that are there before the program begins: a server's are those that it serves."""
        return (Params(me.blocks),) if me.share is not None else self.text.stack.holds(me)
