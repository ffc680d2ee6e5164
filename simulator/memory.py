"""``memory``: how much each rank of a strategy needs, by kind, read from its program before anything runs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property, lru_cache

from . import checks
from .checking import AnyStrategy
from .cluster import check_ranks
from .cutting import evenly_routed
from .ledger import Footprint, Ledger, Moment
from .model import Model
from .passes import Load
from .precision import Precision
from .problem import Problem
from .program import Instruction
from .rank import Rank
from .rules import Rule
from .stack import Stack, stack
from .values import Params, Value


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
    checks.kind("workload", workload, (Model, Problem), "a Model or a Problem, such as problem('digits-mlp')")
    model = workload.model() if isinstance(workload, Problem) else workload
    named = workload.rule if isinstance(workload, Problem) else rule
    return read(Text(whole, model, check_ranks(ranks), whole.rule or named), precision)


@dataclass(frozen=True)
class Text:
    """All that the memory of a strategy follows from."""

    stack: Stack
    model: Model
    ranks: int
    rule: Rule | None

    def peaks(self) -> list[float]:
        """The most bytes that each rank holds at once. Raises ValueError as ``memory`` does."""
        return [one.most.total for one in read(self)]


def read(text: Text, precision: Precision | None = None) -> tuple[RankMemory, ...]:
    """The memory of every rank; ranks that do the same with as much are walked once."""
    try:
        hash(text)
    except TypeError:  # an order with fields that have no hash cannot be remembered
        return _read.__wrapped__(text, precision)
    return _read(text, precision)


@lru_cache(maxsize=16)
def _read(text: Text, precision: Precision | None) -> tuple[RankMemory, ...]:
    if not text.stack.order.static:
        raise ValueError(
            f"memory is read from the text of a program; that of {text.stack} depends on what its instructions give:"
            " take a synchronous strategy"
        )
    text.stack.check(text.ranks, text.model)
    known: dict[object, RankMemory] = {}
    return tuple(_of(text, rank, precision or _plain(text), known) for rank in range(text.ranks))


def _plain(text: Text) -> Precision:
    """The precision that a strategy says."""
    reduced = text.stack.reduced
    return Precision.plain(text.model.parameter_bytes) if reduced is None else reduced.precision(text.model)


def _of(text: Text, rank: int, precision: Precision, known: dict[object, RankMemory]) -> RankMemory:
    me = _rank(text, rank, steps=2)
    said = _said(text.stack, me)
    if any(load.microbatch >= me.microbatches for _, load in said if isinstance(load, Load)):
        # Steps overlap: as many as there are ranks may be under way before it goes on evenly.
        me = _rank(text, rank, steps=text.ranks + 2)
        said = _said(text.stack, me)
    alike = said, me.blocks, tuple(map(me.samples, range(me.microbatches))), id(me.model)
    if alike not in known:
        ledger = Ledger(_rank(text, rank, steps=2), _begins_with(text, me), precision)
        known[alike] = RankMemory(tuple(ledger.walk(said)))
    return known[alike]


def _rank(text: Text, rank: int, steps: int) -> Rank:
    return Rank(text.stack, rank, text.ranks, evenly_routed(text.model), steps, text.rule)


def _said(strategy: Stack, me: Rank) -> tuple[tuple[int, Instruction], ...]:
    return tuple((me.step, instruction) for instruction in strategy.program(me))


def _begins_with(text: Text, me: Rank) -> tuple[Value, ...]:
    """The parameters that are there before the program begins: a server's are those that it serves."""
    return (Params(me.blocks),) if me.share is not None else text.stack.holds(me)
