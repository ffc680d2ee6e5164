"""Two levels: add up within a node, then between nodes, then share within the node.

Within a node of g ranks every rank ends with the sum of one chunk; all ranks of a place in their node then reduce that
chunk over m nodes. Only 2(m-1)/m of the buffer passes a node's network cards: 2(g-1)/g·size/inner +
2(m-1)/m·size/outer.
"""

from __future__ import annotations

from dataclasses import dataclass

from ... import checks
from ...program import AllReduce
from ...rank import Rank
from ...stack import Layer, Rules, smallest_factor
from ...values import Value
from .group import Group, Written, all_reduce_by, in_place_of
from .ring import ring, ring_all_gather, ring_reduce_scatter


@dataclass(frozen=True)
class HierarchicalAllReduce(Layer):
    """Writes out AllReduce as rings within nodes and rings between them.

    - ``group``: ranks per node, neighbours along the axis; None: the smallest prime factor of the ranks. Raises
      ValueError where the ranks are no multiple of it.
    - ``over``: the axis whose collectives it writes out; None: all.

    ``theory.hierarchical_all_reduce`` is its time.

    >>> text = listing(stack(DataParallel(), HierarchicalAllReduce(group=2)), ranks=4).columns[0][-3]
    >>> text.count("Send")
    4
    """

    group: int | None = None
    over: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group is not None:
            checks.whole("group", self.group, least=1)

    def rules(self, me: Rank) -> Rules:
        def hierarchical(group: Group, value: Value) -> Written:
            return two_levels(group, value, self.group or smallest_factor(group.size))

        return in_place_of({AllReduce: all_reduce_by(hierarchical)}, me, self.over)


def two_levels(group: Group, value: Value, width: int) -> Written:
    """Reduce-scatter in my node, all-reduce of my chunk between nodes, all-gather in my node."""
    if group.size % width:
        raise ValueError(
            f"nodes are of one size: the ranks along {group.over!r} are a multiple of group; got {group.size} ranks and"
            f" group={width}"
        )
    node, place = divmod(group.at, width)
    inside = group.of(range(node * width, (node + 1) * width))
    between = group.of(range(place, group.size, width))
    yield from ring_reduce_scatter(inside, value)
    yield from ring(between, inside.chunk(value, place))
    yield from ring_all_gather(inside, value)
