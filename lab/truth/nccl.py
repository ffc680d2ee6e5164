"""All-reduces inside of a machine, measured by vTrain and predicted from NCCL's own tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import simulator as sim
from simulator.plans import Planner
from simulator.program import AllReduce

from .rows import table


@dataclass(frozen=True)
class Collective:
    """An all-reduce of ``size`` bytes over ``ranks`` A100s, which took ``measured`` seconds, and what we say."""

    ranks: int
    size: int
    measured: float

    @property
    def predicted(self) -> float:
        """Seconds, alone in a DGX A100."""
        cluster = sim.cluster("dgx-a100", ranks=self.ranks)
        return Planner(cluster, tuple(range(self.ranks))).best(AllReduce, self.size).seconds(self.size)


def all_reduces() -> Iterator[Collective]:
    """Those on A100s; the file has some on V100s too, which were joined in another way."""
    for line in table("nccl_allreduce_intranode"):
        if line["gpu"] == "A100":
            yield Collective(int(line["n_gpus"]), int(line["bytes"]), float(line["time_ns_outofplace"]) / 1e9)
