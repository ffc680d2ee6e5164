"""How ranks share the work of one block, and what of a model is then left for one of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from .block import Block, Part, saved
from .model import Model
from .work import shared

WHOLE = (0, 1)


@dataclass(frozen=True)
class Cut:
    """Which share of every block is a rank's: (index, of) along each axis that splits blocks.

    ``tensor`` splits units (hidden units, heads, letters), ``context`` tokens, ``expert`` experts. With ``sequence``,
    ranks along ``tensor`` also share the tokens where units are not split; with ``vertical`` each of them has the
    columns of the data that its part of the first block reads.
    """

    tensor: tuple[int, int] = WHOLE
    context: tuple[int, int] = WHOLE
    expert: tuple[int, int] = WHOLE
    sequence: bool = False
    vertical: bool = False

    @property
    def parted(self) -> bool:
        """Whether blocks are run in parts."""
        return max(self.tensor[1], self.context[1], self.expert[1]) > 1

    def splits(self, block: Block) -> bool:
        """Whether ranks run this block together, in parts."""
        parted = max(self.tensor[1], self.context[1]) > 1
        return parted or (self.expert[1] > 1 and any(part.experts for part in block.parts))

    @property
    def weight(self) -> float:
        """A rank's share of the loss, where gradients add up over ranks that have other tokens."""
        return 1.0 / (self.context[1] * self.expert[1])

    @property
    def speaks(self) -> bool:
        """Whether this rank notes the loss: of ranks that all know the same, the first does."""
        return self.tensor[0] == 0

    def shape(self, block: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what enters a block on this rank, given that of a microbatch as a whole."""
        if self.context[1] > 1:
            shape = (shape[0], shape[1] // self.context[1], *shape[2:])
        if self.sequence and block and self.tensor[1] > 1:
            shape = (prod(shape[:-1]) // self.tensor[1], shape[-1])
        return shape


def local(model: Model, cut: Cut) -> Model:
    """A model as one rank sees it; one object for all ranks that see the same. ValueError when a block has no parts."""
    known = model.cuts.get(cut) if cut.parted else model
    if known is None:
        mine = _local(model, cut)
        known = model.cuts[cut] = next((other for other in model.cuts.values() if _same(other, mine)), mine)
    return known


def _same(one: Model, other: Model) -> bool:
    """Whether two ranks see the same of a model; most of its blocks are one object, which is compared once."""
    pairs = {(id(a), id(b)): (a, b) for a, b in zip(one.blocks, other.blocks)}
    return one.loss == other.loss and one.load == other.load and all(a == b for a, b in pairs.values())


def _local(model: Model, cut: Cut) -> Model:
    _refuse_ties(model, cut)
    last, known = len(model.blocks) - 1, dict[object, Block]()
    for number, block in enumerate(model.blocks):  # most are one object: cut once, they still are
        place = id(block), number == 0, number == last
        known[place] = known.get(place) or _block(model, number, cut)
    blocks = tuple(known[id(block), number == 0, number == last] for number, block in enumerate(model.blocks))
    load = shared(model.load, units=cut.tensor[1]) if cut.vertical else model.load
    return replace(model, blocks=blocks, loss=shared(model.loss, tokens=cut.context[1]), load=load)


def _block(model: Model, number: int, cut: Cut) -> Block:
    block, last = model.blocks[number], number == len(model.blocks) - 1
    if not cut.splits(block):
        return block
    if not block.parts:
        _refuse_whole(model, number)
    _check(number, block, cut)
    split = cut.sequence if number else cut.vertical
    tokens = cut.context[1] * (cut.tensor[1] if split else 1)
    sums = [at for at, part in enumerate(block.parts) if part.sums] if last else []
    busy = _busiest(block, cut)
    parts = tuple(_part(part, cut, at in sums[-1:], busy) for at, part in enumerate(block.parts))
    entering = block.input_bytes / tokens
    return Block(
        parameters=sum(part.parameters for part in parts),
        forward=shared(block.forward, units=cut.tensor[1], tokens=cut.context[1]),
        backward=shared(block.backward, units=cut.tensor[1], tokens=cut.context[1]),
        input_bytes=entering,
        parts=parts,
        saved_bytes=entering if block.recomputes else saved(parts),
        recomputes=block.recomputes,
        aside=block.aside,
    )


def _refuse_whole(model: Model, number: int) -> None:
    """A block without parts: what a user can do depends on whose model it is."""
    known = "the model is known by its totals alone"
    own = "give its module a method parts(cut), as the tiny GPT's have, or its Block some parts"
    remedy = own if model.recipe is None else known
    raise ValueError(
        f"ranks run a block together in parts; block {number} of {model.name} has none: {remedy}; data, sharded and"
        " pipeline parallelism leave blocks whole"
    )


def _refuse_ties(model: Model, cut: Cut) -> None:
    """Each rank would have to know which of its units are whose."""
    for number, block in enumerate(model.blocks):
        for tie in block.ties:
            if cut.splits(block) or cut.splits(model.blocks[tie.block]):
                raise ValueError(
                    f"blocks that ranks split share no parameters; block {number} is tied to block {tie.block}: untie"
                    " them, or use a strategy that does not split blocks, such as Sharded or Pipeline"
                )


def _check(number: int, block: Block, cut: Cut) -> None:
    """Refuse more ranks than there is to split."""
    kinds = "units (heads, hidden units, letters)", "experts"
    for part in block.parts:
        experts = part.units if part.experts else ()
        for what, units, ways in zip(kinds, (part.split_units, experts), (cut.tensor[1], cut.expert[1])):
            few = min((count for count, _ in units), default=ways)
            if few >= ways:
                continue
            raise ValueError(f"every rank needs some of the {what}; block {number} has {few} for {ways} ranks")


def _held(part: Part, cut: Cut) -> int:
    return part.held(*cut.expert, tensor=cut.tensor) if part.experts else part.held(*cut.tensor)


def _busiest(block: Block, cut: Cut) -> float:
    """How many times its even share of the tokens a rank's experts have: all ranks wait for the busiest."""
    routed = max((part.routing or 1.0 for part in block.parts), default=1.0)
    return routed if cut.expert[1] > 1 else 1.0


def _part(part: Part, cut: Cut, total: bool, busy: float) -> Part:
    """What is left of a part; it hands on its ``output_bytes``: of a sum its own tokens, unless it is ``total``.

    Experts have ``busy`` times their even share of the tokens.
    """
    ranks = cut.tensor[1] if part.split or cut.sequence else 1
    units = ranks if part.split else 1
    busy, experts = (busy, cut.expert[1]) if part.experts else (1.0, 1)
    tokens = cut.context[1] * ranks // units / busy
    leaves = ranks if not part.sums else 1 if total else cut.tensor[1] if cut.sequence else 1
    return replace(
        part,
        forward=shared(part.forward, units, tokens, experts),
        backward=shared(part.backward, units, tokens, experts),
        output_bytes=part.output_bytes / (cut.context[1] * leaves),
        parameters=_held(part, cut),
        units=(),
        saved_bytes=_saved(part, cut, busy),
        saved_units=0.0,
        again_bytes=part.again_bytes / cut.tensor[1] / cut.context[1],
        # What is split is known by the numbers above; the flags go on saying what is communicated.
    )


def _saved(part: Part, cut: Cut, busy: float) -> float | None:
    """What a rank keeps of a part for its backward pass, per sample."""
    if part.saved_bytes is None:
        return None
    whole = part.saved_bytes / (cut.tensor[1] if cut.sequence else 1)
    return busy * (whole + part.saved_units / cut.tensor[1]) / cut.context[1]


def replicated(block: Block, cut: Cut, over: str) -> tuple[int, int]:
    """First and one past the last of a block's parameters that all ranks along an axis hold, in their own order.

    A rank lays a block's parameters out in this order: those split over "tensor", those of which every rank has all,
    those split over "expert".
    """
    if not cut.splits(block):
        return 0, block.parameters
    units = [(part, _held(part, cut) - part.parameters) for part in block.parts]
    split = sum(size for part, size in units if not part.experts)
    experts = sum(size for part, size in units if part.experts and not part.inside)
    whole = sum(part.parameters for part in block.parts)
    return (split, split + whole + experts) if over == "tensor" else (0, split + whole)
