"""Clusters by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..cluster import Cluster
from .device import Device
from .overheads import Overheads
from .presets import made


def cluster(
    name: str,
    ranks: int | None = None,
    device: Device | str | Sequence[Device] | None = None,
    algorithm: str | None = None,
    overheads: Overheads | None = None,
    **knobs: Any,
) -> Cluster:
    """A cluster by name; ``clusters.presets.presets()`` lists names and knobs.

    - ``ranks``: how many, where the preset does not count ``nodes``.
    - ``device``: what computes, instead of the preset's own; a name from the catalogue, or one for each rank.
    - ``algorithm``, ``overheads``: as of a Cluster, instead of the preset's own.
    - ``knobs``: of the preset; and ``library``, ``devices``, as of a Cluster, instead of its own.

    >>> print(cluster("ideal", ranks=4), cluster("dgx-h100", nodes=2).ranks, sep=", ")
    4 ranks on an ideal network, 16
    >>> cluster("single-switch", ranks=4, library="nccl").library, cluster("dgx-h100", nodes=2, library=None).library
    ('nccl', None)
    """
    given: Mapping[str, Any] = dict(ranks=ranks, device=device, algorithm=algorithm, overheads=overheads)
    return made(name, {**{key: value for key, value in given.items() if value is not None}, **knobs})
