"""BytePS: data parallelism in which idle machines help to add (Jiang et al. 2020, OSDI).

Gradients are cut into pieces. Each piece has one rank that adds it up and sends the sum back: a helper, which does
nothing else, or a worker, besides its own work. When n workers and k helpers share the pieces so that all links are
equally busy, and pushes and pulls overlap, all-reducing M bytes takes 2n(n-1)/(n² + kn - 2k)·M/bandwidth: as long as a
ring with k = 0, and M/bandwidth with k = n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import ClassVar

from .. import checks
from ..program import Backward, Start, Update, Wait
from ..rank import Rank
from ..stack import Order, Program
from ..theory import helped_shares
from ..values import Chunk, Grads, Params, Value
from .collectives.group import Group, Written, mean
from .single import gradient


@dataclass(frozen=True)
class Piece:
    """A part of a block's gradient, and the position of the rank that adds it up."""

    block: int
    value: Value
    owner: int


@dataclass(frozen=True)
class BytePS(Order):
    """Ranks 0 to ``helpers - 1`` only add; the others are workers, and add too as far as that is of use.

    - ``helpers``: how many ranks only add; 0 is all-reduce among the workers.
    - ``partition_bytes``: gradients are cut into pieces of at most this many bytes [default 4 MB, as in BytePS].
    - ``ahead``: how many pieces a worker pushes before it waits for the first to be added, and again until it waits for
      its sum.
    - ``colocated``: workers add too, as much as is best; without it helpers alone do: plain parameter servers.

    The time to all-reduce approaches ``theory.helped_all_reduce`` (without ``colocated``, ``theory.parameter_server``)
    for many small pieces with 0, 1 or n helpers for n workers. With other numbers it stays up to a quarter above: every
    worker sends to helpers and to workers at once, and links give each flow as much, though helpers are to get more.
    Raises ValueError where no worker or nobody to add is left.

    >>> run = simulate(BytePS(helpers=2), Model.of_times(blocks=3), cluster("ideal", ranks=6), steps=2)
    >>> run.makespan, run.workers
    (18.0, (2, 3, 4, 5))
    """

    axis: ClassVar[str | None] = "byteps"
    named: ClassVar[tuple[str, ...]] = ("helpers",)

    helpers: int = 1
    partition_bytes: float = 4096000
    ahead: int = 16
    colocated: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("helpers", self.helpers)
        checks.number("partition_bytes", self.partition_bytes, above=0)
        checks.whole("ahead", self.ahead)
        if not self.helpers and not self.colocated:
            raise ValueError(f"somebody adds: with colocated=False there are helpers; got helpers={self.helpers}")

    def check(self, ranks: int, blocks: int) -> None:
        if ranks <= self.helpers:
            raise ValueError(f"{self.helpers} helper(s) need at least one worker more; got ranks={ranks}")

    def share(self, me: Rank) -> tuple[int, int] | None:
        if me.at("byteps") < self.helpers:
            return None
        return me.at("byteps") - self.helpers, me.size("byteps") - self.helpers

    def holds(self, me: Rank) -> Value | None:
        return Params(me.blocks) if me.share is not None else None

    def program(self, me: Rank) -> Program:
        return self.help(me) if me.share is None else self.work(me)

    def work(self, me: Rank) -> Program:
        """As soon as a block's gradient is there, exchange its pieces; wait for all sums before the update."""
        pieces = self.pieces_of(me)
        for _ in me.steps():
            turn = 0
            for instruction in gradient(me):
                yield instruction
                if isinstance(instruction, Backward):
                    turns = range(turn, self.until(pieces, instruction.block, me))
                    what, turn = [one for at in turns for one in self.turn(me, pieces, at)], turns.stop
                    if what:
                        yield Start(what, on="byteps")
            yield Wait()
            yield Update(Params(me.blocks))

    def help(self, me: Rank) -> Program:
        """Add up my pieces, in the order in which workers push them."""
        pieces = self.pieces_of(me)
        for _ in me.steps():
            for piece in pieces:
                yield from self.serve(me, piece)

    # ------------------------------------------------------------ pieces

    def pieces_of(self, me: Rank) -> tuple[Piece, ...]:
        """All pieces of the gradients of a step, from the last block to the first."""
        cuts = {block: ceil(me.bytes(Grads(block)) / self.partition_bytes) for block in reversed(me.blocks)}
        blocks = [block for block, count in cuts.items() for _ in range(count)]
        parts = [Chunk(Grads(block), index, of) for block, of in cuts.items() for index in range(of)]
        return tuple(map(Piece, blocks, parts, shared_out(tuple(map(me.bytes, parts)), self.weights(me))))

    def weights(self, me: Rank) -> tuple[float, ...]:
        """How much each position is to add, relative to the others."""
        workers = me.size("byteps") - self.helpers
        theirs, mine = helped_shares(workers, self.helpers) if self.colocated else (0.0, 1.0)
        return (mine,) * self.helpers + (theirs,) * workers

    def until(self, pieces: Sequence[Piece], block: int, me: Rank) -> int:
        """The turn before which the exchange stops when the blocks from this one on have their gradients."""
        if block == me.blocks[0]:
            return len(pieces) + 2 * self.ahead
        return sum(piece.block >= block for piece in pieces)

    def turn(self, me: Rank, pieces: Sequence[Piece], turn: int) -> Written:
        """Push a piece, add up the one ``ahead`` before it if it is mine, and pull the one ``ahead`` before that."""
        group, after = Group.along(me, "byteps"), turn - self.ahead
        for piece in one_of(pieces, turn):
            if piece.owner != group.at:
                yield group.send(piece.value, piece.owner)
        for piece in one_of(pieces, after):
            yield from self.serve(me, piece)
        for piece in one_of(pieces, after - self.ahead):
            if piece.owner != group.at:
                yield group.recv(piece.value, piece.owner)

    def serve(self, me: Rank, piece: Piece) -> Written:
        """If a piece is mine: take it from all workers, average, and send it to all."""
        group = Group.along(me, "byteps")
        if piece.owner != group.at:
            return
        clients = [worker for worker in range(self.helpers, group.size) if worker != group.at]
        for client in clients:
            if client == self.helpers and me.share is None:  # a helper has no gradient of its own to add to
                yield group.recv(piece.value, client)
            else:
                yield from group.add(piece.value, client)
        yield from mean(piece.value, group.size - self.helpers, "mean")
        for client in clients:
            yield group.send(piece.value, client)


def one_of(pieces: Sequence[Piece], index: int) -> Sequence[Piece]:
    """The piece of this number, if there is one."""
    return pieces[index : index + 1] if index >= 0 else ()


@lru_cache(maxsize=256)
def shared_out(sizes: tuple[float, ...], weights: tuple[float, ...]) -> tuple[int, ...]:
    """Who gets each piece: whoever then has least, for its weight.

    >>> shared_out((1.0,) * 6, (2.0, 1.0, 0.0))
    (0, 0, 1, 0, 0, 1)
    """
    loads, owners = [0.0] * len(weights), []
    able = [position for position, weight in enumerate(weights) if weight > 0]
    for size in sizes:
        owner = min(able, key=lambda position: (loads[position] + size) / weights[position])
        loads[owner] += size
        owners.append(owner)
    return tuple(owners)
