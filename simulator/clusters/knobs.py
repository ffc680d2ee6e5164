"""What every cluster takes, however it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .. import checks
from .device import Device

if TYPE_CHECKING:
    from ..cluster import Cluster

KNOBS = ("device", "devices", "algorithm", "library", "overheads")
"""What every way to make a cluster takes."""


def device_of(one: object) -> Device:
    """A device, or the one of the catalogue that has this key."""
    if isinstance(one, str):
        from ..catalog import device

        return device(one)
    checks.kind("device", one, Device, 'a Device, or the key of one, such as "a100-sxm-80gb"')
    return one  # type: ignore[return-value]


def instead(cluster: Cluster, knobs: Mapping[str, Any]) -> Cluster:
    """A cluster with some of the ``KNOBS`` in the place of its own. Raises ValueError for others.

    ``device`` is one for all ranks, whatever they had, or a list with one for each; ``library=None`` is none.

    >>> two = instead(Cluster.flat(2, 1e9), dict(device=["a100-sxm-80gb", "h100-sxm"], algorithm="tree"))
    >>> two.device_of(1).name, two.algorithm
    ('NVIDIA H100 SXM', 'tree')
    """
    if unknown := [name for name in knobs if name not in KNOBS]:
        raise ValueError(f"every cluster takes {', '.join(KNOBS)}; got {', '.join(unknown)}")
    fields = dict(knobs)
    if "device" in fields:
        chosen = fields["device"]
        every = tuple(chosen) if isinstance(chosen, (list, tuple)) and chosen else (chosen,)
        fields = {"devices": every if len(every) > 1 else (), **fields, "device": every[0]}
    return replace(cluster, **fields) if fields else cluster


def check_cluster(given: object, example: str = 'a Cluster, as in cluster("ideal", ranks=4)') -> None:
    """Refuse what is no Cluster; of the name of one, say what to write instead."""
    from ..cluster import Cluster

    if isinstance(given, str) and (made := written(given)):
        raise ValueError(f"cluster is {example}; got the name of one: write {made}")
    checks.kind("cluster", given, Cluster, example)


def written(name: str) -> str:
    """How to write a cluster of this name, with a size; "" where no cluster has the name.

    >>> written("dgx-h100"), written("ideal")
    ('sim.cluster("dgx-h100", nodes=2)', 'sim.cluster("ideal", ranks=8)')
    """
    from .presets import plainly, presets

    knobs = presets().get(plainly(name))
    if knobs is None:
        return ""
    return f'sim.cluster("{name}", {"nodes=2" if "nodes" in knobs else "ranks=8"})'


def check_ranks(ranks: int) -> int:
    """Refuse what is no number of ranks."""
    return checks.whole("ranks", ranks, least=1)


def many(ranks: int) -> str:
    """So many ranks, in words.

    >>> many(1), many(8)
    ('1 rank', '8 ranks')
    """
    return f"{check_ranks(ranks)} rank{'s' if ranks > 1 else ''}"
