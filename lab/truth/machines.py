"""Machines of published runs that are no preset: how many accelerators each has, and what joins them."""

from __future__ import annotations

from dataclasses import dataclass

from simulator import catalog
from simulator.cluster import Cluster
from simulator.clusters.machines import NVLINK_LATENCY
from simulator.clusters.rails import Box, Rails
from simulator.clusters.wiring import Speed


@dataclass(frozen=True)
class Machines:
    """``width`` accelerators of a kind on a fast switch in each, and one network card for all of them.

    ``card`` [B/s per direction]: what data can have of the network of one machine; ``latency`` [s] from rank to rank.
    ``library``: whose collectives, as of a Cluster.
    """

    chip: str
    width: int
    card: float
    latency: float
    library: str | None = "nccl"

    def cluster(self, nodes: int) -> Cluster:
        """So many machines.

        >>> Machines("v100-sxm2-32gb", 4, 12.5e9, 1e-6).cluster(nodes=2).ranks
        8
        """
        inside = catalog.link(self.chip)._replace(latency=NVLINK_LATENCY)
        bus, card = (Speed(speed, self.latency / 4) for speed in (4 * self.card, self.card))
        wiring = Rails((Box(inside, bus, card),) * nodes, self.width, 1, nodes, 1, card)
        device = catalog.device(self.chip)
        name = f"{nodes} x {self.width} {device.name}"
        return Cluster(name, wiring.ranks, wiring, device, algorithm="auto", library=self.library)
