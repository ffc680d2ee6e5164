"""Load balancing: how to share samples out to devices of different speeds, or blocks to stages."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate
from math import inf

from . import checks
from .block import Block
from .cluster import Cluster
from .clusters.device import Device
from .model import Model


def balanced(cluster: Cluster, model: Model, workers: int | None = None) -> tuple[int, ...]:
    """How many samples of a batch each worker should take, so that the last is done as soon as can be.

    The smallest T such that Σ_i n_i(T) reaches the batch, where n_i(T) samples take worker i's device T seconds forward
    and backward; each has at least one. Where time is proportional to samples, n_i is to the device's speed. Give them
    to ``Shares``. Communication and memory are not looked at.

    - ``workers``: how many there are, each with as many ranks that follow each other (None: every rank is one); a
      worker is as fast as the slowest of its ranks.

    Raises ValueError where ranks do not split evenly over workers, and for a batch smaller than these.

    >>> from simulator import Flops
    >>> cluster = Cluster("two kinds", 2, Cluster.flat(2, 1e9).wiring, devices=(Device(flops=3e12), Device(flops=1e12)))
    >>> balanced(cluster, Model("one block", (Block(0, Flops(1e9), Flops(2e9)),), batch=64))
    (48, 16)
    """
    groups = _groups(cluster, model, "workers", workers)
    if model.batch < len(groups):
        raise ValueError(f"every worker needs a sample; got a batch of {model.batch} for {len(groups)} workers")
    blocks = Counter(model.blocks)

    @cache
    def seconds(device: Device, samples: int) -> float:
        return sum(count * _seconds(block, samples, device) for block, count in blocks.items())

    counts = _soonest(groups, model.batch, seconds)
    return tuple(1 + more for more in _apportioned(model.batch - len(groups), [count - 1 for count in counts]))


def balanced_stages(cluster: Cluster, model: Model, stages: int | None = None) -> tuple[int, ...]:
    """How many blocks each stage of a pipeline should have, so that its slowest stage is as fast as can be.

    Minimizes the longest time of a stage's blocks, forward and backward, on its own device: the throughput of a
    pipeline is one microbatch in that time. Give them to ``Pipeline(split=…)``.

    - ``stages``: how many there are, each of as many ranks that follow each other (None: every rank is one); a stage is
      as fast as the slowest of its ranks.

    Raises ValueError where ranks do not split evenly over stages, and for fewer blocks than stages.

    >>> from simulator import Flops
    >>> cluster = Cluster("two kinds", 2, Cluster.flat(2, 1e9).wiring, devices=(Device(flops=3e12), Device(flops=1e12)))
    >>> balanced_stages(cluster, Model("8 blocks", (Block(0, Flops(1e9), Flops(2e9)),) * 8))
    (6, 2)
    """
    groups = _groups(cluster, model, "stages", stages)
    if len(model.blocks) < len(groups):
        raise ValueError(f"every stage needs a block; got {len(model.blocks)} block(s) for {len(groups)} stages")
    sums = {}
    for device in {device for group in groups for device in group}:
        times = [_seconds(block, 1, device) for block in model.blocks]
        sums[device] = [0.0, *accumulate(times)]
    ends = _cut([[sums[device] for device in group] for group in groups])
    return tuple(end - start for start, end in zip([0, *ends], ends))


def _groups(cluster: Cluster, model: Model, name: str, asked: int | None) -> list[tuple[Device, ...]]:
    """The different devices of each group of ranks that follow each other."""
    checks.kind("cluster", cluster, Cluster, "a Cluster, and stands before the model")
    checks.kind("model", model, Model, "a Model, and stands after the cluster")
    many = checks.whole(name, cluster.ranks if asked is None else asked, least=1)
    if cluster.ranks % many:
        raise ValueError(f"{name} have equally many ranks; got {name}={many} on a cluster of {cluster.ranks}")
    width = cluster.ranks // many
    ranks = [range(first, first + width) for first in range(0, cluster.ranks, width)]
    return [tuple(dict.fromkeys(cluster.device_of(rank) for rank in group)) for group in ranks]


def _seconds(block: Block, samples: float, device: Device) -> float:
    again = block.forward.of(samples, device) if block.recomputes else 0.0
    return block.forward.of(samples, device) + again + block.backward.of(samples, device)


def _soonest(
    groups: Sequence[tuple[Device, ...]], batch: int, seconds: Callable[[Device, int], float]
) -> list[int]:
    """How many samples each is through within the shortest time in which all together are through a batch."""

    def within(limit: float, group: tuple[Device, ...]) -> int:
        times = range(1, batch + 1)
        done = (bisect_right(times, limit, key=lambda samples: seconds(device, samples)) for device in group)
        return max(1, min(done))

    def through(limit: float) -> list[int]:
        known = {group: within(limit, group) for group in set(groups)}
        return [known[group] for group in groups]

    low, high = 0.0, max(seconds(device, batch) for group in set(groups) for device in group)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if sum(through(middle)) >= batch else (middle, high)
    return through(high)


def _apportioned(whole: int, weights: Sequence[int]) -> list[int]:
    """Whole numbers with a sum, in proportion to weights: those with the largest remainders are rounded up."""
    total = sum(weights) or 1
    parts = [whole * weight // total for weight in weights]
    rest = sorted(range(len(weights)), key=lambda at: (-(whole * weights[at] % total), at))
    for at in rest[: whole - sum(parts)]:
        parts[at] += 1
    return parts


def _cut(stages: Sequence[Sequence[Sequence[float]]]) -> list[int]:
    """Where each stage ends, so that the longest is as short as can be; of each stage the sums of times by device.

    ``best[b]`` is the shortest that the longest of the first stages can be if these have b blocks.
    """
    blocks = len(stages[0][0]) - 1
    best, chosen = [0.0, *[inf] * blocks], []
    for sums in stages:
        longest = [[max(best[start], max(one[end] - one[start] for one in sums)) for start in range(end)] or [inf]
                   for end in range(blocks + 1)]  # fmt: skip
        chosen.append([min(range(len(row)), key=row.__getitem__) for row in longest])
        best = [min(row) for row in longest]
    ends = [blocks]
    for starts in reversed(chosen[1:]):
        ends.append(starts[ends[-1]])
    return ends[::-1]
