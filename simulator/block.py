"""The blocks of a model and their parts: parameters, work and sizes, and how ranks may share them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import checks
from .values import Tied, bounds
from .work import FREE, Scaled, Work, require_work

EXPERT = -3
"""Column of the expert's number in the rows that a Part with ``routes`` gives, one for each choice of an expert."""
PARTS = "the Parts of a block, in their order, or () for a block that ranks do not share"


@dataclass(frozen=True)
class Part:
    """A part of a block that ranks run together; see ``ForwardPart``.

    - ``forward``, ``backward``: how long it takes where it is not split.
    - ``output_bytes``: the size of what leaves it, per sample.
    - ``parameters``: those that every rank holds; ``units``: (how many, parameters of each) that are split over ranks.
    - ``shares``: ranks split its units, and each needs all of its input. ``sums``: they split its units, and their
      outputs add up. ``adds``: it adds what entered the part of that number in the block.
    - ``mixes``: every token of it reads other tokens, as attention does; with ``causal`` only those before it.
    - ``routes``: it sends tokens to experts, in rows whose column ``EXPERT`` says to which; ``experts``: it is these
      experts, its units; ``inside``: units of each expert, which ranks split that split those of other parts.
      ``routing``: with ``routes``, how much more of the tokens the busiest rank sends or gets than the mean one;
      without it an AllToAll cannot be timed without tensors.
    - ``saved_bytes``: what it keeps for its backward pass, per sample (None: what enters it); ``saved_units`` too,
      which ranks split that split its units. ``again_bytes``: what its backward pass first computes again, per sample,
      and holds only while it runs; it is split as ``saved_units`` are.

    Raises ValueError for counts and sizes below 0, and a ``routing`` below 1.

    >>> part = Part(parameters=8, units=((10, 100),), shares=True)  # 8 that all ranks hold, 100 for each of 10 units
    >>> part.held(index=0, of=5)
    208
    """

    forward: Work = FREE
    backward: Work = FREE
    output_bytes: float = 0.0
    parameters: int = 0
    units: tuple[tuple[int, int], ...] = ()
    shares: bool = False
    sums: bool = False
    adds: int | None = None
    mixes: bool = False
    causal: bool = False
    routes: bool = False
    experts: bool = False
    inside: tuple[tuple[int, int], ...] = ()
    routing: float | None = None
    saved_bytes: float | None = None
    saved_units: float = 0.0
    again_bytes: float = 0.0

    def __post_init__(self) -> None:
        checks.owned(self)
        require_work("forward", self.forward, of="Part")
        require_work("backward", self.backward, of="Part")
        checks.whole("parameters", self.parameters, of="Part")
        checks.kind("units", self.units, tuple, "(how many, parameters of each), one pair or more, as in ((8, 100),)")
        if self.adds is not None:
            checks.whole("adds", self.adds, of="Part")
        for name in ("output_bytes", "saved_units", "again_bytes"):
            checks.number(name, getattr(self, name), least=0, of="Part")
        for name, least in (("saved_bytes", 0), ("routing", 1)):
            if (value := getattr(self, name)) is not None:
                checks.number(name, value, least=least, of="Part")

    @property
    def split(self) -> bool:
        """Whether tensor parallelism splits it."""
        return bool(self.split_units) or self.mixes

    @property
    def split_units(self) -> tuple[tuple[int, int], ...]:
        """The units that tensor parallelism splits; of experts those inside of each."""
        return self.inside if self.experts else self.units

    def held(self, index: int, of: int, tensor: tuple[int, int] = (0, 1)) -> int:
        """How many parameters share ``index`` of ``of`` has; of experts, that ``tensor`` of what is inside of each."""
        units = self.units
        if tensor[1] > 1 and self.inside:
            units = tuple((count, _held(self.inside, *tensor)) for count, _ in self.units)
        return self.parameters + _held(units, index, of)


@dataclass(frozen=True)
class Block:
    """One piece of a model, the unit of Forward and Backward.

    ``parameters`` is a count; ``forward`` and ``backward`` say how long it takes; ``input_bytes`` is the size of
    what enters it, per sample. ``weight`` is the part of ``backward`` that BackwardWeight does (None: half of it).
    ``parts`` say how ranks may run it together; without them no tensor, context or expert parallelism can split it.
    ``shapes`` are those of its parameters, for compressors of matrices; () where they are not known.
    ``ties`` are the parameters of earlier blocks that it uses too, such as those of an embedding; they do not count
    among its own. ``buffers`` counts the numbers that it keeps without learning them. ``saved_bytes`` is the size, per
    sample, of all that a forward pass keeps for its backward pass, its input included; None: of its input alone.
    With ``recomputes`` it keeps its input alone until then, and its backward pass begins with its forward pass again.
    ``aside``: it does not count where blocks are split evenly over stages; it goes with its neighbour.

    Raises ValueError for counts and sizes below 0, and for work that is none.

    >>> from simulator import Flops
    >>> Block(1_000_000, forward=Flops(2e6), backward=Flops(4e6), input_bytes=4000)
    <Block of 1,000,000 parameters: 2e+06 FLOP forward and 4e+06 backward a sample>
    """

    parameters: int = 0
    forward: Work = FREE
    backward: Work = FREE
    input_bytes: float = 0.0
    weight: Work | None = None
    parts: tuple[Part, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()
    ties: tuple[Tied, ...] = ()
    buffers: int = 0
    saved_bytes: float | None = None
    recomputes: bool = False
    aside: bool = False

    def __post_init__(self) -> None:
        checks.owned(self)
        checks.whole("parameters", self.parameters)
        checks.whole("buffers", self.buffers)
        if self.saved_bytes is not None:
            checks.number("saved_bytes", self.saved_bytes, least=0)
        checks.number("input_bytes", self.input_bytes, least=0)
        for name in ("forward", "backward", *(["weight"] if self.weight is not None else [])):
            require_work(name, getattr(self, name), of="Block")
        parts = checks.several("parts", self.parts, PARTS)
        for part in parts:
            checks.kind("parts", part, Part, PARTS)
        if type(self.parts) is not tuple:
            object.__setattr__(self, "parts", tuple(parts))
        if {type(self.recomputes), type(self.aside)} != {bool}:
            checks.flags(self)
        checks.kind("shapes", self.shapes, tuple, "those of the parameters, such as ((4, 8), (8,))")
        checks.kind("ties", self.ties, tuple, "those parameters of earlier blocks that it uses, a tuple of Tied")

    def __repr__(self) -> str:
        parts = f", {len(self.parts)} parts" if self.parts else ""
        flops = f"{self.forward.flops:.4g} FLOP forward and {self.backward.flops:.4g} backward a sample"
        return f"<Block of {self.parameters:,} parameters: {flops}{parts}>"

    @property
    def later(self) -> Work:
        """The work of its BackwardWeight; its BackwardInput does the rest of ``backward``."""
        return Scaled(self.backward, 0.5) if self.weight is None else self.weight


def saved(parts: tuple[Part, ...]) -> float | None:
    """What all parts keep for their backward passes, per sample; None where one does not say."""
    if any(part.saved_bytes is None for part in parts):
        return None
    return sum((part.saved_bytes or 0.0) + part.saved_units for part in parts)


def in_parts(block: Block, units: int, experts: int) -> Block:
    """The same block in parts that ranks can share, as ``Model.in_parts`` says."""
    routed = [Part(routes=True, routing=1.0), Part(experts=True)] if experts else []
    kinds = [Part(shares=True), Part(mixes=True, causal=True), *routed, Part(sums=True)]
    holders = 3 if experts else 2
    parts = []
    for part in kinds:
        count = experts if part.experts else units if part.shares or part.sums else 0
        each = block.parameters // (holders * count) if count else 0
        parts.append(
            replace(
                part,
                forward=Scaled(block.forward, 1 / len(kinds)),
                backward=Scaled(block.backward, 1 / len(kinds)),
                output_bytes=block.input_bytes,
                units=((count, each),) if count else (),
            )
        )
    rest = block.parameters - sum(part.held(0, 1) for part in parts)
    parts[1] = replace(parts[1], parameters=rest)
    return replace(block, parts=tuple(parts))


def evenly_routed(block: Block) -> Block:
    """The same block, of which every expert gets as many tokens, where it does not say otherwise."""
    if not any(part.routes and part.routing is None for part in block.parts):
        return block
    return replace(block, parts=tuple(replace(part, routing=1.0) if part.routes else part for part in block.parts))


def _held(units: tuple[tuple[int, int], ...], index: int, of: int) -> int:
    """The parameters of share ``index`` of ``of`` of some units."""
    shares = (bounds(count, index, of) for count, _ in units)
    return sum((end - start) * each for (start, end), (_, each) in zip(shares, units))
