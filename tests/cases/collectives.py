"""Rows of collectives that are written out as programs, and of what is known by the names Horovod and BytePS."""

from __future__ import annotations

from collections.abc import Callable

import simulator as sim
from simulator.strategies.byteps import shared_out
from simulator.values import bounds

from .table import Bytes, Case, alone, piped_and_averaged

BETWEEN_2_AND_4 = (2, 3, 4)


def parts(count: int, of: int) -> list[int]:
    """How many elements the chunks of so many elements have."""
    return [end - start for start, end in (bounds(count, index, of) for index in range(of))]


def in_bytes(elements: Callable[[int, int], list[int]]) -> Bytes:
    """What each rank sends, from the elements that it sends: ``elements(all of them, ranks)``."""
    return lambda model, ranks: [
        float(model.parameter_bytes * sent) for sent in (elements(model.parameters, ranks) if ranks > 1 else [0])
    ]


def ring(count: int, n: int) -> list[int]:
    """All chunks but one, twice: adding up, one's own is not sent; handing on, one's neighbour's."""
    own = parts(count, n)
    return [2 * count - own[rank] - own[(rank + 1) % n] for rank in range(n)]


def doubling(count: int, n: int) -> list[int]:
    """Everything in each of log2 n rounds; of three ranks the first hands its value to the second and back."""
    return {2: [count] * 2, 3: [count, 2 * count, count], 4: [2 * count] * 4}[n]


def halving(count: int, n: int) -> list[int]:
    """Half, a quarter and so on, and back."""
    low, high = parts(count, 2)
    if n == 4:
        a, b, c, d = parts(count, 4)
        return [high + b + a + low, high + a + b + low, low + d + c + high, low + c + d + high]
    return [count, count] if n == 2 else [count, 2 * count, count]


def tree(count: int, n: int) -> list[int]:
    """Up once, but for the root; down to one's children."""
    children = {2: [1, 0], 3: [2, 0, 0], 4: [2, 1, 0, 0]}[n]
    return [count * (below + (rank > 0)) for rank, below in enumerate(children)]


def double_tree(count: int, n: int) -> list[int]:
    """In each tree, half of everything to the parent and to each child."""
    one, two = parts(count, 2)
    return {
        2: [one + two, one + two],
        3: [one + 2 * two, one + two, 2 * one + two],
        4: [one + two, one + 3 * two, 3 * one + two, one + two],
    }[n]


def hierarchical(count: int, n: int) -> list[int]:
    """Of four ranks: half in the node, half between the nodes, half in the node again; of a prime number: a ring."""
    half = parts(count, 2)
    return [count + half[rank % 2] for rank in range(4)] if n == 4 else ring(count, n)


def everybody_serves(count: int, n: int) -> list[int]:
    """Everything but one's own chunk is pushed; the sum of one's own goes to all others."""
    return [count + (n - 2) * own for own in parts(count, n)]


def one_serves(count: int, n: int) -> list[int]:
    """The first answers all others."""
    return [(n - 1) * count] + [count] * (n - 1)


def helped(helpers: int, weights: dict[int, tuple[float, float]], piece: int) -> Bytes:
    """BytePS: who adds a piece answers all other workers, and the workers push what is not theirs.

    ``weights[workers]`` is what a helper and a worker add, relative to each other; a piece has at most so many bytes.
    """

    def sent(model: sim.Model, ranks: int) -> list[float]:
        workers, width = ranks - helpers, model.parameter_bytes
        counts = [block.parameters for block in reversed(model.blocks) if block.parameters]
        sizes = [float(width * part) for count in counts for part in parts(count, -(-count * width // piece))]
        of_helper, of_worker = weights[workers]
        owners = shared_out(tuple(sizes), (of_helper,) * helpers + (of_worker,) * workers)
        mine = [sum(size for size, owner in zip(sizes, owners) if owner == rank) for rank in range(ranks)]
        every = sum(sizes)
        return [workers * own for own in mine[:helpers]] + [every + (workers - 2) * own for own in mine[helpers:]]

    return sent


def row(id: str, layer: sim.Layer, elements: Callable[[int, int], list[int]]) -> Case:
    """Data parallelism over a written-out all-reduce."""
    return Case(id, sim.stack(sim.DataParallel(), layer), BETWEEN_2_AND_4, in_bytes(elements), alone)


def everybody_to_everybody(group: sim.strategies.collectives.Group, value: sim.Value) -> object:
    """An all-reduce as a student may write it."""
    others = [rank for rank in range(group.size) if rank != group.at]
    for other in others:
        yield group.send(value, other)
    for other in others:
        yield from group.add(value, other)


rings = row("written-ring", sim.RingAllReduce(), ring)
byteps = Case(
    "byteps-1",
    sim.BytePS(helpers=1, partition_bytes=500),
    (3, 4),
    helped(1, {2: (2, 1), 3: (4, 2)}, 500),
    alone,
)

SYNCHRONOUS: tuple[Case, ...] = (
    rings,
    *(rings.on(name, 3) for name in ("gpt", "own")),
    row("written-doubling", sim.RecursiveDoubling(), doubling),
    row("written-halving", sim.HalvingDoubling(), halving),
    row("written-tree", sim.TreeAllReduce(), tree),
    row("written-double-tree", sim.DoubleTreeAllReduce(), double_tree),
    row("written-hierarchical", sim.HierarchicalAllReduce(), hierarchical),
    row("written-servers", sim.ServerAllReduce(), everybody_serves),
    row("written-server", sim.ServerAllReduce(servers=1), one_serves),
    row("written-own", sim.AllReduceBy(everybody_to_everybody), lambda count, n: [(n - 1) * count] * n),
    Case("horovod", sim.Horovod(), (1, *BETWEEN_2_AND_4), in_bytes(ring), alone),
    Case(
        "written-pipeline-data",
        sim.stack(sim.Pipeline("1f1b", microbatches=3), sim.DataParallel(), sim.RingAllReduce()),
        (4,),
        piped_and_averaged,
        lambda ranks, blocks: (3 + 2 - 1) * 3.0 * blocks / 2,
    ),
    byteps,
    byteps.by("adam", 3),
    Case(
        "byteps-2",
        sim.BytePS(helpers=2, partition_bytes=500),
        (4,),
        helped(2, {2: (1, 0)}, 500),
        alone,
    ),
    Case(
        "byteps-servers",
        sim.BytePS(helpers=1, colocated=False),
        (3,),
        helped(1, {2: (1, 0)}, 4096000),
        alone,
    ),
)
"""Strategies that must give what a single process gives."""
