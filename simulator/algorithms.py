"""How collectives move bytes: which rank sends how much to which, and how many messages follow one another.

Pure functions of the members' machines. A stage is all that flows at one time; stages follow one another. A ``Traffic``
says how many bytes one rank sends another for one byte of the value.

Sources: rings, Patarasuk and Yuan 2009; double binary trees, Sanders, Speck and Träff 2009; two levels, Cho et al. 2019
(BlueConnect); one ring per network card, and trees of chains, as NCCL lays them (src/graph in NVIDIA/nccl).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from math import prod

from .collectives import doublings, parents
from .program import AllGather, AllReduce, AllToAll, Barrier, Broadcast, Collective, ReduceScatter

Machines = Sequence[Sequence[int]]
"""The members of a collective, by the machine that they sit in."""
Traffic = Counter[tuple[int, int]]

PASSES = {AllReduce: 2, ReduceScatter: 1, AllGather: 1}
"""How often all but 1/n of the value passes every rank in a ring."""


@dataclass(frozen=True)
class Stage:
    """What flows at one time, after ``inside`` messages within a machine and ``between`` messages between machines.

    ``streams``: whether it goes in pieces along chains.
    """

    traffic: Traffic
    inside: int = 0
    between: int = 0
    streams: bool = False


def ring(kind: type[Collective], machines: Machines, rings: Sequence[Sequence[int]]) -> tuple[Stage, ...]:
    """Along rings through all members at once, each with its part of the value.

    >>> ring(AllReduce, [[0, 1]], [[0, 1]])
    (Stage(traffic=Counter({(0, 1): 1.0, (1, 0): 1.0}), inside=2, between=0, streams=False),)
    """
    n, m = sum(map(len, machines)), len(machines)
    share = PASSES[kind] * (n - 1) / n / len(rings)
    traffic: Traffic = Counter()
    for order in rings:
        for hop in _around(order):
            traffic[hop] += share  # type: ignore[assignment]
    return (Stage(traffic, PASSES[kind] * (n - m), PASSES[kind] * (m - 1)),)


def chain(root: int, machines: Machines, rings: Sequence[Sequence[int]]) -> tuple[Stage, ...]:
    """A broadcast: along the rings from the root to all others, in pieces that follow one another."""
    n, m = sum(map(len, machines)), len(machines)
    traffic: Traffic = Counter()
    for order in rings:
        at = order.index(root)
        for hop in pairwise([*order[at:], *order[:at]]):
            traffic[hop] += 1 / len(rings)  # type: ignore[assignment]
    return (Stage(traffic, n - m, m - 1, True),)


def tree(machines: Machines) -> tuple[Stage, ...]:
    """An all-reduce: up two binary trees of machines and down again, half of the value in each; chains in the machines.

    Every network card that a machine has for its members carries its part.
    """
    width = min(map(len, machines))
    traffic: Traffic = Counter()
    for first in range(width):
        chains = [[*machine[first:], *machine[:first]] for machine in machines]
        edges = [(edge, 1 / width) for line in chains for edge in pairwise(line)]
        joined = [edge for tree in both_trees(len(machines)) for edge in tree]
        edges += [((chains[a][0], chains[b][0]), 0.5 / width) for a, b in joined]
        for (a, b), share in edges:
            traffic[a, b] += share  # type: ignore[assignment]
            traffic[b, a] += share  # type: ignore[assignment]
    return (Stage(traffic, 2 * (max(map(len, machines)) - 1), 2 * doublings(len(machines)), True),)


def hierarchical(kind: type[Collective], machines: Machines) -> tuple[Stage, ...]:
    """Two levels: within machines, between those at one place in each, and within machines again.

    An all-reduce is a reduce-scatter, an all-reduce and an all-gather; of the other two it is one half. Machines have
    equally many members.
    """
    g, m = len(machines[0]), len(machines)
    within: Traffic = Counter(dict.fromkeys((hop for machine in machines for hop in _around(machine)), (g - 1) / g))
    across = [hop for place in zip(*machines) for hop in _around(place)]
    between: Traffic = Counter(dict.fromkeys(across, PASSES[kind] * (m - 1) / m / g))
    inner, outer = Stage(within, g - 1), Stage(between, 0, PASSES[kind] * (m - 1))
    return {ReduceScatter: (inner, outer), AllGather: (outer, inner), AllReduce: (inner, outer, inner)}[kind]


def buckets(kind: type[Collective], axes: Sequence[Machines]) -> tuple[Stage, ...]:
    """Two levels and more: along one dimension of a torus after the other, both ways round (Sack and Gropp 2015).

    The value has a part for each dimension, which begins there: so all links are busy all the time.
    """
    halves = {AllReduce: (False, True), ReduceScatter: (False,), AllGather: (True,)}[kind]
    found = []
    for gathers in halves:
        for turn in reversed(range(len(axes))) if gathers else range(len(axes)):
            found.append(_turn(axes, turn))
    return tuple(found)


def _turn(axes: Sequence[Machines], turn: int) -> Stage:
    """Every part of the value passes round its next dimension; all dimensions before it have cut it smaller."""
    traffic: Traffic = Counter()
    sides = [len(lines[0]) for lines in axes]
    for part in range(len(axes)):
        axis = (part + turn) % len(axes)
        before = prod(sides[(part + earlier) % len(axes)] for earlier in range(turn))
        share = (sides[axis] - 1) / sides[axis] / before / len(axes) / 2
        for hop in (hop for line in axes[axis] for hop in _around(line)):
            traffic[hop] += share  # type: ignore[assignment]
            traffic[hop[::-1]] += share  # type: ignore[assignment]
    return Stage(traffic, 0, max(sides) - 1)


def direct(kind: type[Collective], machines: Machines) -> tuple[Stage, ...]:
    """Everybody to everybody: each adds up one part of the value, and gives the sum to all."""
    members = [rank for machine in machines for rank in machine]
    traffic: Traffic = Counter(dict.fromkeys(permutations(members, 2), 1 / len(members)))
    alone = len(machines) == 1
    return (Stage(traffic, int(alone), int(not alone)),) * PASSES[kind]


def pairwise_exchange(machines: Machines) -> tuple[Stage, ...]:
    """An all-to-all: everybody has as much for each of the others; a byte is one of those that a rank sends."""
    members = [rank for machine in machines for rank in machine]
    n, g = len(members), max(map(len, machines))
    traffic: Traffic = Counter(dict.fromkeys(permutations(members, 2), 1 / (n - 1)))
    return (Stage(traffic, g - 1, n - g),)


def usable(algorithm: str, kind: type[Collective], machines: Machines) -> str:
    """The algorithm, or "ring" where it does not do such a collective, or not on machines of uneven sizes.

    >>> usable("tree", AllReduce, [[0, 1], [2]]), usable("tree", AllGather, [[0, 1], [2]])
    ('tree', 'ring')
    """
    levels = kind in PASSES and len({len(machine) for machine in machines}) == 1
    does = {"tree": kind is AllReduce, "hierarchical": levels, "direct": kind in PASSES}
    return algorithm if does.get(algorithm, False) else "ring"


def stages_of(
    algorithm: str,
    kind: type[Collective],
    machines: Machines,
    rings: Sequence[Sequence[int]],
    axes: Sequence[Machines] = (),
    root: int = 0,
) -> tuple[Stage, ...]:
    """A collective of at least two members, by an algorithm that does it.

    ``rings`` go through all members, ``axes`` are the rings along the dimensions of a torus, and ``root`` has the value
    of a broadcast.
    """
    if kind is Barrier:
        return (Stage(Counter(), doublings(max(map(len, machines))), doublings(len(machines))),)
    if kind is AllToAll:
        return pairwise_exchange(machines)
    if kind is Broadcast:
        return chain(root, machines, rings)
    if algorithm == "tree":
        return tree(machines)
    if algorithm == "hierarchical":
        return buckets(kind, axes) if axes else hierarchical(kind, machines)
    return direct(kind, machines) if algorithm == "direct" else ring(kind, machines, rings)


def _around(order: Sequence[int]) -> list[tuple[int, int]]:
    """The hops of a ring; none where it has one member."""
    return list(zip(order, [*order[1:], order[0]])) if len(order) > 1 else []


def both_trees(n: int) -> list[list[tuple[int, int]]]:
    """The edges (child, parent) of both trees of n machines; of one machine, one tree without any.

    The second is a mirror of the first, or the first moved on by one.
    """
    first = [(child, parent) for child, parent in enumerate(parents(n)) if parent is not None]
    names = [(n - 1 - place if n % 2 == 0 else (place + 1) % n) for place in range(n)]
    return [first, [(names[child], names[parent]) for child, parent in first]] if n > 1 else [[]]
