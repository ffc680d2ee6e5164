"""Whether devices know how to compute in the dtype of a model: they have a peak for it, or no peaks at all."""

from __future__ import annotations

from .cluster import Cluster
from .clusters.device import Device
from .model import Model
from .precision import reduced
from .rank import Rank
from .stack import Stack


def lacks(model: Model, device: Device) -> str:
    """What a device says of a dtype of the model's products that it has no peak for; "" where it has all.

    >>> from simulator import model
    >>> lacks(model("gpt2-small", dtype="bf16"), Device("a chip", peaks={"fp16": 1e12}))
    "a chip has peaks for fp16, none for 'bf16': give dtype='fp16'"
    """
    try:
        for dtype in sorted(model.dtypes):
            device.peak(dtype)
    except ValueError as error:
        return str(error)
    return ""


def lacking(model: Model, cluster: Cluster) -> dict[int, str]:
    """What each device of a cluster ``lacks``, by its ``id``: ranks have the same object many times."""
    devices = {id(device): device for device in cluster.devices or (cluster.device,)}
    return {key: lacks(model, device) for key, device in devices.items()}


def ensure_peaks(whole: Stack, model: Model, cluster: Cluster) -> None:
    """Raise ValueError where a worker's device has no peak for a dtype in which the model computes: before it runs."""
    if whole.reduced is not None:
        model = reduced(model, whole.reduced.dtype)
    wrong = lacking(model, cluster)
    for rank in range(cluster.ranks) if any(wrong.values()) else ():
        why = wrong[id(cluster.device_of(rank))]
        if why and Rank(whole, rank, cluster.ranks, model, steps=1).share is not None:
            raise ValueError(f"a device computes in a dtype that it has a peak for; {why}")
