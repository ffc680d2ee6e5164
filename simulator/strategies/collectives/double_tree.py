"""Two binary trees at once: whoever is a leaf of one is inside the other, so that every link is used both ways.

Each tree adds and spreads half of the buffer, in chunks that follow each other. The time grows with log2 n, as that of
a tree does, while each rank sends about twice the buffer, as in a ring: the shape of
``theory.double_tree_all_reduce`` (Sanders, Speck and Träff 2009; NCCL since 2.4).
"""

from __future__ import annotations

from dataclasses import dataclass

from ... import checks
from ...collectives import parents
from ...program import AllReduce
from ...rank import Rank
from ...stack import Layer, Rules
from ...values import Chunk, Value
from .group import Group, Written, all_reduce_by, in_place_of

Place = tuple[int | None, tuple[int, ...]]
"""Where a rank stands in a tree: its parent (None for the root) and its children."""


@dataclass(frozen=True)
class DoubleTreeAllReduce(Layer):
    """Writes out AllReduce as sums down, and broadcasts up, two binary trees.

    - ``chunks``: into how many each tree's half is cut; ``theory.best_chunks`` says how many are best.
    - ``over``: the axis whose collectives it writes out; None: all.

    >>> parents(8)
    [None, 2, 4, 2, 0, 6, 4, 6]
    """

    chunks: int = 4
    over: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("chunks", self.chunks, least=1)

    def rules(self, me: Rank) -> Rules:
        def double_tree(group: Group, value: Value) -> Written:
            return both_trees(group, value, self.chunks)

        return in_place_of({AllReduce: all_reduce_by(double_tree)}, me, self.over)


def both_trees(group: Group, value: Value, chunks: int) -> Written:
    """Up to both roots, then down. First what goes up from leaves, and last what comes down to them.

    So nobody's work for one tree waits for the other tree.
    """
    trees = (first_tree(group.size, group.at), second_tree(group.size, group.at))
    pairs = [(tree, half * chunks + c) for c in range(chunks) for half, tree in enumerate(trees)]
    parts = [(*tree, Chunk(value, index, 2 * chunks)) for tree, index in pairs]
    inner, outer = [part for part in parts if part[1]], [part for part in parts if not part[1]]
    for parent, below, chunk in outer + inner:
        for child in below:
            yield from group.add(chunk, child)
        if parent is not None:
            yield group.send(chunk, parent)
    for parent, below, chunk in inner + outer:
        if parent is not None:
            yield group.recv(chunk, parent)
        for child in below:
            yield group.send(chunk, child)


def first_tree(n: int, rank: int) -> Place:
    """The parent and the children of a rank in the first tree."""
    every = parents(n)
    return every[rank], tuple(child for child, parent in enumerate(every) if parent == rank)


def second_tree(n: int, rank: int) -> Place:
    """The same tree in a mirror, or, where that would leave the leaves where they are, moved on by one rank."""
    names = [(n - 1 - place if n % 2 == 0 else (place + 1) % n) for place in range(n)]
    parent, below = first_tree(n, names.index(rank))
    return None if parent is None else names[parent], tuple(names[child] for child in below)
