"""What a collective costs: rounds of latency, bytes through each rank's link, bytes each rank sends.

Ring algorithms unless said otherwise; ``size`` is the whole buffer in bytes, ``n`` the number of ranks. Bandwidth
terms are those of Patarasuk and Yuan 2009, also in NVIDIA's nccl-tests (doc/PERFORMANCE.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log2

from .program import AllGather, AllReduce, AllToAll, Barrier, Broadcast, Collective, ReduceScatter


def rounds(kind: type[Collective], n: int) -> int:
    """How many messages follow one another: each costs one latency."""
    if kind is AllReduce:
        return 2 * (n - 1)
    if kind in (ReduceScatter, AllGather, AllToAll):
        return n - 1
    return doublings(n)


def critical_bytes(kind: type[Collective], n: int, size: float) -> float:
    """Bytes that must pass one rank's link, one after another."""
    if kind is AllReduce:
        return 2 * (n - 1) * size / n
    if kind in (ReduceScatter, AllGather):
        return (n - 1) * size / n
    return doublings(n) * size if kind is Broadcast else 0.0


def sent_bytes(instruction: Collective, n: int, size: float, position: int) -> float:
    """Bytes that the rank at ``position`` sends itself, where all ranks give as much.

    A broadcast is a binomial tree: who has the value sends it on, to twice as many ranks in every round.
    """
    kind = type(instruction)
    if kind is Broadcast:
        return size * _children(n, (position - instruction.root) % n)  # type: ignore[attr-defined]
    return 0.0 if kind is Barrier else critical_bytes(kind, n, size)


def gathered_bytes(sizes: Sequence[float], position: int) -> float:
    """Bytes that a rank sends in an all-gather of values of different sizes: all but what its successor gave.

    >>> gathered_bytes([10, 20, 30], 0)
    40
    """
    return sum(sizes) - sizes[(position + 1) % len(sizes)] if len(sizes) > 1 else 0.0


def doublings(n: int) -> int:
    """Rounds until one rank has reached n by doubling: ceil(log2 n)."""
    return ceil(log2(n)) if n > 1 else 0


def parents(n: int) -> list[int | None]:
    """The parent of each of n ranks in a binary tree; None for its root. All leaves have odd numbers.

    Clearing a rank's lowest set bit and setting the next gives the middle of a range twice as wide; where there is no
    such rank, clearing alone gives the middle of what is left.

    >>> parents(8)
    [None, 2, 4, 2, 0, 6, 4, 6]
    """
    found: list[int | None] = [None]
    for rank in range(1, n):
        low = rank & -rank
        up = (rank ^ low) | (low << 1)
        found.append(up if up < n else rank ^ low)
    return found


def _children(n: int, position: int) -> int:
    """To how many ranks the rank at ``position`` of a binomial tree (root 0) sends."""
    joined = position.bit_length()
    return sum(position + (1 << bit) < n for bit in range(joined, doublings(n)))
