"""Order + layers = strategy.

An *order* is a program: it says who computes what, when. A *layer* is a table from instruction types to
generators that replace such an instruction. ``stack(Pipeline(…), DataParallel())`` is a strategy of both.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from inspect import getattr_static
from math import prod
from types import GeneratorType, NoneType

from . import checks
from .cutting import Cut
from .model import Model
from .precision import Reduced
from .rank import Rank
from .rewriting import Program as Program
from .rewriting import Rules as Rules
from .rewriting import Table, spoken, through
from .rewriting import iter_program as iter_program
from .rules import Rule
from .rules.scaled import scaled
from .strategy import Layer as Layer
from .strategy import Order as Order
from .strategy import Strategy
from .values import Value


@dataclass(frozen=True)
class Stack:
    """An order with layers over it; each layer rewrites what stands before it."""

    order: Order
    layers: tuple[Layer, ...] = ()

    def __post_init__(self) -> None:
        for part in self.parts:
            checks.kind("rule", part.rule, (Rule, NoneType), "one of simulator.rules, such as rules.SGD(0.1), or None")
            _check_knobs(part)
        axes = [part.axis for part in self.parts if part.axis]
        for axis in axes:
            if axes.count(axis) > 1:
                raise ValueError(f"each part has an axis of its own; got {self}, of which two call theirs {axis!r}")

    @property
    def parts(self) -> tuple[Order | Layer, ...]:
        """The order and its layers."""
        return self.order, *self.layers

    @cached_property
    def rule(self) -> Rule | None:
        """The one rule that was named, if any."""
        named = {part.rule for part in self.parts if part.rule is not None}
        if len(named) > 1:
            raise ValueError(f"a strategy has one rule; got {' and '.join(map(str, named))} in {self}")
        return named.pop() if named else None

    @cached_property
    def reduced(self) -> Reduced | None:
        """The type in which blocks compute; None: the problem's own."""
        named = {part.reduced for part in self.parts if part.reduced is not None}
        if len(named) > 1:
            raise ValueError(f"a strategy computes in one type; got several in {self}: leave one MixedPrecision")
        return named.pop() if named else None

    def share(self, me: Rank) -> tuple[int, int] | None:
        """(worker, workers) of a rank: its slice of every global batch."""
        share = self.order.share(me)
        for layer in self.layers:
            share = layer.share(me, share)
        return share

    def cut(self, me: Rank) -> Cut:
        """Which share of every block is a rank's."""
        cut = Cut()
        for layer in self.layers:
            cut = layer.cut(me, cut)
        return cut

    def holds(self, me: Rank) -> tuple[Value, ...]:
        """The parameters for which a rank is an authority when the run ends."""
        alone = self.order.holds(me)
        held: tuple[Value, ...] = () if alone is None else (alone,)
        for layer in self.layers:
            held = layer.holds(me, held)
        return held

    @cached_property
    def local(self) -> bool:
        """Whether workers learn for themselves."""
        return any(part.local for part in self.parts)

    @property
    def drifts(self) -> bool:
        """Whether replicas may differ when a run ends."""
        return any(part.drifts for part in self.parts)

    def slice(self, me: Rank) -> tuple[int, int] | None:
        """A rank's samples of every global batch, where they are not an even share."""
        return next((found for part in self.parts if (found := part.slice(me)) is not None), None)

    def grid(self, ranks: int) -> dict[str, int]:
        """The rank grid: axis names and their sizes, slowest first.

        An axis without a size takes the smallest prime factor of the ranks that are left; the last takes them all.
        """
        axes = {part.axis: part.extent for part in self.parts if part.axis}
        taken = prod(extent for extent in axes.values() if extent is not None)
        if ranks % taken:
            raise ValueError(f"{self} needs a multiple of {taken} ranks; got ranks={ranks}")
        left = ranks // taken
        open_axes = [axis for axis, extent in axes.items() if extent is None]
        grid = {axis: extent or 1 for axis, extent in axes.items()}
        for axis in open_axes:
            grid[axis] = left if axis == open_axes[-1] else smallest_factor(left)
            left //= grid[axis]
        if left != 1:
            hint = "" if axes else '; an order for several ranks names an axis of the rank grid: axis = "data"'
            raise ValueError(f"{self} runs on {ranks // left} rank(s); got ranks={ranks}{hint}")
        return grid

    def laid_out(self, ranks: int) -> tuple[dict[str, int], dict[str, int]]:
        """(the rank grid, by how much the rank grows from one position of an axis to the next); made once."""
        if ranks not in self._grids:
            grid, strides, stride = self.grid(ranks), dict[str, int](), 1
            for axis in reversed(grid):
                strides[axis] = stride
                stride *= grid[axis]
            self._grids[ranks] = grid, strides
        return self._grids[ranks]

    @cached_property
    def _grids(self) -> dict[int, tuple[dict[str, int], dict[str, int]]]:
        return {}

    def check(self, ranks: int, model: Model) -> None:
        """Raise a ValueError that says why, when this cannot run on so many ranks with such a model."""
        grid = self.grid(ranks)
        for part in self.parts:
            part.check(grid[part.axis] if part.axis else 1, len(model.blocks))

    def program(self, me: Rank) -> Program:
        """The instructions of one rank, all layers applied."""
        program = self.order.program(me)
        if type(program) is not GeneratorType:
            name = type(self.order).__name__
            raise ValueError(f"a program yields instructions: use yield; {name}.program gives {program!r}")
        for layer in self.layers:
            program = through(Table(layer, me), program)
        if any(block.ties for block in me.whole_model.blocks):
            from .tying import Tying

            program = through(Table(Tying(self), me), program)
        if scaled(me.rule):
            from .strategies.agreement import Agreement

            program = through(Table(Agreement(), me), program)
        return program if self.order.static else spoken(program, me)  # those of static ones are seen before they run

    def __str__(self) -> str:
        parts = self.parts[1:] if self.layers and str(self.order) == "Single()" else self.parts
        return " + ".join(map(str, parts))

    def __repr__(self) -> str:
        return f"stack({', '.join(map(repr, self.parts))})"


def stack(order: Order | Layer | Stack, *layers: Layer) -> Stack:
    """Put layers over an order: ``stack(Pipeline("1f1b", microbatches=4), DataParallel())``.

    The last layer stands nearest the instructions. A bare layer stands over ``Single``.

    >>> from simulator import DataParallel, Pipeline
    >>> print(stack(Pipeline("1f1b", microbatches=4), DataParallel()))
    Pipeline(schedule='1f1b', microbatches=4) + DataParallel()
    """
    for layer in layers:
        if not isinstance(layer, Layer):
            raise ValueError(f"an order is followed by layers; got {layer!r}{_remedy(layer)}")
    if isinstance(order, Stack):
        return Stack(order.order, order.layers + layers)
    if isinstance(order, Layer):
        from .strategies.single import Single

        return Stack(Single(), (order, *layers))
    if not isinstance(order, Order):
        raise ValueError(f"a strategy is an Order, a Layer or a stack of them; got {order!r}{_remedy(order)}")
    return Stack(order, layers)


def _check_knobs(part: Strategy) -> None:
    """Refuse attributes that are no fields: strategies that differ in them would count as equal."""
    known, kind = {knob.name for knob in fields(part)}, type(part)
    for name in vars(part):
        if name not in known and not isinstance(getattr_static(kind, name, None), cached_property):
            raise ValueError(
                f"knobs are fields: decorate the class with @dataclass(frozen=True) and declare them there;"
                f" got {kind.__name__} with the attribute {name!r}, which is none"
            )


def _remedy(given: object) -> str:
    """What to write in the place of a class, or of its name."""
    name = given.__name__ if isinstance(given, type) else given
    return f": write {name}(), with brackets" if isinstance(name, str) and name.isidentifier() else ""


def smallest_factor(number: int) -> int:
    """The smallest prime factor; 1 has none and gives itself.

    >>> smallest_factor(12), smallest_factor(35), smallest_factor(1)
    (2, 5, 1)
    """
    return next((n for n in range(2, number + 1) if number % n == 0), 1)
