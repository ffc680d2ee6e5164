"""What is left of a path's links where ranks that behave alike are simulated once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

from .cluster import Cluster, Link
from .errors import CannotFold


def narrowed(
    cluster: Cluster, members: Sequence[int], of: Sequence[int] | Mapping[int, int], path: Mapping[Link, float]
) -> tuple[dict[Link, float], bool]:
    """What a collective's bytes load of the links of those who are simulated, and whether that is exact for all.

    Everybody's own links are loaded as those of who stands for them; where loads differ, the largest counts, which is
    exact as long as no other bytes pass there. Raises CannotFold for links that are nobody's own.
    """
    loads: dict[int, list[tuple[float, ...]]] = {}
    left = {link for link in path if cluster.bandwidth(link) != inf and not cluster.wiring.ample(link)}
    for member in members:
        own = cluster.wiring.private(member)
        loads.setdefault(of[member], []).append(tuple([path.get(link, 0.0) for link in own]))
        left.difference_update(own)
    if left:
        raise CannotFold(f"{len(left)} links, {min(left, key=str)} among them, belong to no rank alone")
    most = {leader: tuple(map(max, zip(*found))) for leader, found in loads.items()}
    alike = all(_close(one, most[leader]) for leader, found in loads.items() for one in found)
    pairs = ((link, load) for leader, mine in most.items() for link, load in zip(cluster.wiring.private(leader), mine))
    return {link: load for link, load in pairs if load}, alike


def told_apart(cluster: Cluster, members: Sequence[int], path: Mapping[Link, float]) -> tuple[int, ...]:
    """A number for each member, the same for those whose own links a collective's bytes load alike."""
    sorts: dict[tuple[str, ...], int] = {}
    loads = (tuple([f"{path.get(link, 0.0):.9g}" for link in cluster.wiring.private(member)]) for member in members)
    return tuple([sorts.setdefault(load, len(sorts)) for load in loads])


def _close(some: Sequence[float], others: Sequence[float]) -> bool:
    return all(abs(a - b) <= 1e-12 * max(a, b) for a, b in zip(some, others))
