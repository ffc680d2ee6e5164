"""What a strategy is made of: an order, which is a program, and layers, which rewrite it."""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar

from . import checks
from .cutting import Cut
from .instruction import require_axis
from .precision import Reduced
from .rank import Rank
from .rewriting import Program, Rules
from .rules import Rule
from .values import Params, Value


@dataclass(frozen=True, repr=False)
class Strategy:
    """What orders and layers have in common.

    ``axis`` names the axis of the rank grid that it adds, if any; ``extent`` is the number of ranks along it, None
    for "as many as there are": by itself the value of the knob that ``sized`` names. ``rule`` is how updates are
    applied; None leaves it to the problem. One of your own that checks its knobs in ``__post_init__`` calls this one's.
    ``named`` are the knobs that its text shows even at their defaults. ``local``: workers learn for themselves, each
    from the mean over its own slice of the batch. ``drifts``: ranks keep replicas that differ for a while, by design.
    """

    axis: ClassVar[str | None] = None
    sized: ClassVar[str | None] = None
    named: ClassVar[tuple[str, ...]] = ()
    local: ClassVar[bool] = False
    drifts: ClassVar[bool] = False
    rule: Rule | None = field(default=None, kw_only=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__repr__" not in vars(cls):  # before @dataclass makes one that shows every default
            cls.__repr__ = Strategy.__repr__  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        if self.rule is not None:
            checks.kind("rule", self.rule, Rule, "one of simulator.rules, such as rules.SGD(0.1), or None")
        if self.sized is not None and self.extent is not None:
            checks.whole(self.sized, self.extent, least=1, of=type(self).__name__)
        checks.flags(self)
        if (over := vars(self).get("over")) is not None:
            require_axis(over)

    @property
    def extent(self) -> int | None:
        """The number of ranks along my axis, or None."""
        return None if self.sized is None else getattr(self, self.sized)

    @property
    def reduced(self) -> Reduced | None:
        """The type in which blocks compute; None: the problem's own."""
        return None

    def check(self, ranks: int, blocks: int) -> None:
        """Raise a ValueError when this cannot run on ``ranks`` ranks along its axis with a model of ``blocks``."""

    def slice(self, me: Rank) -> tuple[int, int] | None:
        """First sample of the global batch that is this rank's, and one past the last; None: an even share."""
        return None

    def __str__(self) -> str:
        """The name and its knobs, without those that are at their defaults."""
        knobs = [f"{knob.name}={getattr(self, knob.name)!r}" for knob in fields(self) if self._shown(knob)]
        return f"{type(self).__name__}({', '.join(knobs)})"

    def __repr__(self) -> str:
        return str(self)

    def _shown(self, knob: Field[Any]) -> bool:
        return knob.name in self.named or bool(getattr(self, knob.name) != knob.default)


@dataclass(frozen=True)
class Order(Strategy):
    """Who computes what, when. Abstract: give it a ``program``.

    ``static`` says that the program uses no results of its instructions, so that it can be listed and checked
    before any machine runs. ``asynchronous`` says that workers do not agree on the parameters of a step.
    """

    @property
    def static(self) -> bool:
        """Whether the program is the same whatever its instructions give."""
        return True

    @property
    def asynchronous(self) -> bool:
        """Whether workers go on without each other."""
        return False

    @property
    def pieces(self) -> int:
        """Into how many microbatches a rank's share of the batch is cut."""
        return 1

    @property
    def chunks_each(self) -> int:
        """Into how many pieces, at least, the blocks of a rank fall: each needs a block."""
        return 1

    def program(self, me: Rank) -> Program:
        """The instructions of one rank."""
        raise NotImplementedError(f"{type(self).__name__} is an Order: give it a method program(self, me)")

    def share(self, me: Rank) -> tuple[int, int] | None:
        """(worker, workers): which slice of the global batch is mine; None: no data."""
        return 0, 1

    def blocks(self, me: Rank) -> tuple[int, ...]:
        """The blocks that this rank computes."""
        return tuple(range(len(me.model.blocks)))

    def holds(self, me: Rank) -> Value | None:
        """The parameters for which this rank is the authority when the run ends."""
        return Params(me.blocks)


@dataclass(frozen=True)
class Layer(Strategy):
    """Replaces instructions of what it stands on. Abstract: give it ``rules``.

    ``splits_batch``: ranks along its axis take a slice each of what would be one rank's share of the batch.
    ``looks_after`` names the kinds of value that it must not miss: an instruction that makes such a value and has no
    rule here is refused, so that a new instruction never slips silently past a layer that ought to know it.
    """

    splits_batch: ClassVar[bool] = False
    looks_after: ClassVar[tuple[type[Value], ...]] = ()

    def rules(self, me: Rank) -> Rules:
        """A table from instruction types to generators that replace such an instruction."""
        raise NotImplementedError(f"{type(self).__name__} is a Layer: give it a method rules(self, me)")

    def share(self, me: Rank, share: tuple[int, int] | None) -> tuple[int, int] | None:
        """The slice of the global batch, given the slice that what stands below me takes."""
        return share if self.axis is None or not self.splits_batch else me.divided(share, self.axis)

    def holds(self, me: Rank, held: tuple[Value, ...]) -> tuple[Value, ...]:
        """The parameters for which this rank is an authority when the run ends, given those of what stands below."""
        return held

    def cut(self, me: Rank, cut: Cut) -> Cut:
        """Which share of every block is this rank's, given how what stands below me cuts blocks."""
        return cut
