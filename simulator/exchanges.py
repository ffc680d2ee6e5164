"""Collectives as single messages: who sends how much to whom, and what each message waits for.

The same algorithms as in ``algorithms``, which says where their bytes flow; here their messages follow one another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise, permutations
from math import prod

from .algorithms import PASSES, Machines, both_trees
from .lanes import Script, Writer
from .program import AllReduce, AllToAll, Broadcast, Collective, ReduceScatter


def script_of(
    algorithm: str,
    kind: type[Collective],
    machines: Machines,
    rings: Sequence[Sequence[int]],
    axes: Sequence[Machines] = (),
    root: int = 0,
    pieces: int = 1,
) -> Script:
    """The messages of ``algorithms.stages_of``; ``pieces``: of what goes along chains and trees.

    >>> script = script_of("ring", AllReduce, [[0], [1]], [[0, 1]])
    >>> [(lane.source, lane.target, lane.share, lane.count) for lane in script.lanes]
    [(0, 1, 0.5, 2), (1, 0, 0.5, 2)]
    """
    writer = Writer()
    if kind is AllToAll:
        _all_at_once(writer, machines)
    elif kind is Broadcast:
        _chain(writer, root, rings, pieces)
    elif algorithm == "tree":
        _tree(writer, machines, pieces)
    elif algorithm == "hierarchical":
        _buckets(writer, kind, axes) if axes else _hierarchical(writer, kind, machines)
    elif algorithm == "direct":
        _direct(writer, kind, machines)
    else:
        _rings(writer, rings, PASSES[kind])
    return writer.script()


def plain_script(kind: type[Collective], members: Sequence[int], root: int = 0) -> Script:
    """Where nobody asks for more: a ring, a binomial tree (``root``: a position), an exchange of pairs in rounds.

    >>> [(lane.source, lane.target) for lane in plain_script(Broadcast, range(4)).lanes]
    [(0, 1), (0, 2), (1, 3)]
    """
    writer = Writer()
    if kind is AllToAll:
        _rounds_of_pairs(writer, members)
    elif kind is Broadcast:
        _binomial(writer, [*members[root:], *members[:root]])
    else:
        _rings(writer, [members], PASSES[kind])
    return writer.script()


def _rings(writer: Writer, rings: Sequence[Sequence[int]], passes: int, share: float = 1.0) -> None:
    for order in rings:
        writer.ring(order, share / len(rings), passes)
    writer.end_stage(passes * (len(rings[0]) - 1))


def _chain(writer: Writer, root: int, rings: Sequence[Sequence[int]], pieces: int) -> None:
    for order in rings:
        at = order.index(root)
        before: tuple[int, ...] = ()
        for source, target in pairwise([*order[at:], *order[:at]]):
            before = (writer.pieces(source, target, 1 / len(rings), pieces, before),)
    writer.end_stage(len(rings[0]) - 1)


def _tree(writer: Writer, machines: Machines, pieces: int) -> None:
    """Up to the root and down again, in both trees, once for each network card that all machines have."""
    width, trees = min(map(len, machines)), both_trees(len(machines))
    for first in range(width):
        lines = [[*machine[first:], *machine[:first]] for machine in machines]
        for edges in trees:
            _up_and_down(writer, lines, edges, 1 / width / len(trees), pieces)
    height = max(_levels(dict(trees[0])).values(), default=0)
    writer.end_stage(2 * (max(map(len, machines)) - 1 + height))


def _up_and_down(
    writer: Writer, lines: Machines, edges: Sequence[tuple[int, int]], share: float, pieces: int
) -> None:
    """One tree: the heads of the lines are joined by its edges (child, parent)."""
    levels = _levels(dict(edges))
    downwards = [(line[j], line[j + 1]) for line in lines for j in range(len(line) - 1)]
    joined = sorted(edges, key=lambda edge: levels[edge[0]])
    downwards = [(lines[parent][0], lines[child][0]) for child, parent in joined] + downwards
    into: defaultdict[int, tuple[int, ...]] = defaultdict(tuple)
    for above, below in reversed(downwards):
        into[above] += (writer.pieces(below, above, share, pieces, into[below]),)
    for above, below in downwards:
        into[below] = (writer.pieces(above, below, share, pieces, into[above]),)


def _levels(parent: dict[int, int]) -> dict[int, int]:
    """How far each node with a parent is from the root."""
    found: dict[int, int] = {}
    for node in parent:
        at, level = node, 0
        while at in parent:
            at, level = parent[at], level + 1
        found[node] = level
    return found


def _hierarchical(writer: Writer, kind: type[Collective], machines: Machines) -> None:
    g, across = len(machines[0]), list(zip(*machines))

    def within() -> None:
        for machine in machines:
            writer.ring(machine, 1.0, 1)
        writer.end_stage(g - 1)

    def between() -> None:
        for place in across:
            writer.ring(place, 1 / g, PASSES[kind])
        writer.end_stage(PASSES[kind] * (len(machines) - 1))

    parts = {ReduceScatter: (within, between), AllReduce: (within, between, within)}.get(kind, (between, within))
    _in_order(parts)


def _in_order(parts: Iterable[Callable[[], None]]) -> None:
    for part in parts:
        part()


def _buckets(writer: Writer, kind: type[Collective], axes: Sequence[Machines]) -> None:
    sides = [len(lines[0]) for lines in axes]
    turns = list(range(len(axes)))
    order = {ReduceScatter: turns, AllReduce: turns + turns[::-1]}.get(kind, turns[::-1])
    for turn in order:
        for part in turns:
            axis = (part + turn) % len(axes)
            before = prod(sides[(part + earlier) % len(axes)] for earlier in range(turn))
            for line in axes[axis]:
                writer.ring(line, 1 / before / len(axes) / 2, 1)
                writer.ring(line[::-1], 1 / before / len(axes) / 2, 1)
        writer.end_stage(max(sides) - 1)


def _direct(writer: Writer, kind: type[Collective], machines: Machines) -> None:
    """Parts to who adds them up, all at once; sums to everybody when they are complete."""
    for _ in range(PASSES[kind]):
        _all_at_once(writer, machines, kind)


def _all_at_once(writer: Writer, machines: Machines, kind: type[Collective] = AllToAll) -> None:
    """A part for everybody; of an exchange, a rank keeps nothing for itself."""
    pairs = permutations([rank for machine in machines for rank in machine], 2)
    many = sum(map(len, machines)) - (kind is AllToAll)
    for source, target in pairs:
        writer.lane(source, target, 1 / many)
    writer.end_stage(1)


def _binomial(writer: Writer, line: Sequence[int]) -> None:
    """Who has the value sends it on: in every round twice as many have it."""
    have = 1
    while have < len(line):
        for parent, child in zip(line[:have], line[have : 2 * have]):
            writer.lane(parent, child, 1.0)
        writer.end_stage(1)
        have *= 2


def _rounds_of_pairs(writer: Writer, members: Sequence[int]) -> None:
    """In round r everybody sends to the rank r places on, having received from the one r - 1 places back."""
    n = len(members)
    for r in range(1, n):
        for place, rank in enumerate(members):
            writer.lane(rank, members[(place + r) % n], 1 / (n - 1))
        writer.end_stage(1)
