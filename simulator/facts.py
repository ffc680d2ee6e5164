"""What the numbers of a Run follow from besides its spans: FLOP of the model, and what its devices promise and cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from . import checks
from .clusters.device import Device

if TYPE_CHECKING:
    from .cluster import Cluster
    from .model import Model
    from .precision import Reduced

DTYPE_OF_WIDTH = {8: "fp64", 4: "fp32", 2: "bf16", 1: "fp8"}


@dataclass(frozen=True)
class Facts:
    """About a model and the devices that ran it; no observations, so equal runs may differ in them.

    - ``model_flops``, ``hardware_flops``: FLOP per sample, without and with what is recomputed; 0: not known.
    - ``tokens`` per sample, as the model says; None where samples, such as images, have none. ``dtype`` that the model
      computes in.
    - ``devices``: (device, of how many ranks), in the order of ranks; () where nobody knows them.

    >>> from simulator import cluster, model
    >>> facts = Facts.of(model("gpt3-175b"), cluster("dgx-a100", nodes=16))
    >>> facts.tokens, facts.dtype, [(device.name, count) for device, count in facts.devices]
    (2048, 'bf16', [('NVIDIA A100 SXM 80GB', 128)])
    """

    model_flops: float = 0.0
    hardware_flops: float = 0.0
    tokens: int | None = None
    dtype: str | None = None
    devices: tuple[tuple[Device, int], ...] = ()

    @classmethod
    def of(cls, model: Model, cluster: Cluster | None = None, reduced: Reduced | None = None) -> Facts:
        """What a model and a cluster say; without a cluster the devices are not known.

        ``reduced``: the type in which a strategy computes, where that is not the model's own.
        """
        dtype = _dtype(model) if reduced is None else reduced.dtype
        facts = cls(model.model_flops, model.hardware_flops, model.tokens, dtype)
        return facts if cluster is None else facts.on(cluster)

    def on(self, cluster: Cluster) -> Facts:
        """The same model on the devices of a cluster: for real runs on a machine that was calibrated."""
        each = groupby(cluster.devices) if cluster.devices else [(cluster.device, range(cluster.ranks))]
        return replace(self, devices=tuple((device, len(tuple(ranks))) for device, ranks in each))

    @property
    def fleet(self) -> list[tuple[Device, range]]:
        """Each device with the ranks that it is of."""
        found, first = [], 0
        for device, count in self.devices:
            found.append((device, range(first, first + count)))
            first += count
        return found

    @property
    def priced(self) -> str:
        """Of what dates the prices are; empty where nobody knows."""
        return ", ".join(dict.fromkeys(device.priced for device, _ in self.devices if device.priced))

    @property
    def unknown_peak(self) -> str:
        """Why the sum of the peaks is not known; empty where it is."""
        if not self.devices:
            return (
                "utilization needs the peaks of devices, which this run does not know:"
                " dataclasses.replace(run, facts=run.facts.on(cluster)) adds those of a cluster"
            )
        if self.dtype is None:
            return "utilization needs the dtype of the model, whose numbers have an unusual width: set facts.dtype"
        for device, _ in self.devices:
            if device.peaks and self.dtype not in dict(device.peaks):
                known = ", ".join(dict(device.peaks))
                return f"{device.name} has peaks for {known}, none for {self.dtype}: choose a dtype=, or add the peak"
        return ""

    def to_json(self) -> dict[str, Any]:
        """Numbers, texts, lists and dicts only."""
        return {**vars(self), "devices": [[asdict(device), count] for device, count in self.devices]}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Facts:
        """What ``to_json`` gave. Raises ValueError or TypeError for anything else."""
        devices = tuple(
            (Device(**{**device, "peaks": dict(device["peaks"])}), checks.whole("count", count, least=1))
            for device, count in found["devices"]
        )
        for name in ("model_flops", "hardware_flops"):
            checks.number(name, found[name], least=0)
        return cls(**{**found, "devices": devices})


def _dtype(model: Model) -> str | None:
    """What the operations of the model say; else by the width of its parameters."""
    from .operations import Operations

    said = (block.forward.dtype for block in model.blocks if isinstance(block.forward, Operations))
    return next(said, DTYPE_OF_WIDTH.get(model.parameter_bytes))
