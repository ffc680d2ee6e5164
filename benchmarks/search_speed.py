"""How long does a search take? CPU time of one estimate, over all mixes of a large model on many devices; of searches.

The target is at most 5 ms an evaluation, with all that many mixes share: reading the model's blocks, planning
collectives; and at most 30 s for a whole search of GPT-3 175B on 128 devices, 15 s for Mixtral 8x7B on 32.
"""

from __future__ import annotations

import time
from collections import Counter

import simulator as sim
from simulator.whatif.estimate import Estimator
from simulator.whatif.mixes import mixes

TARGET = 5e-3


def measure(name: str, nodes: int, batch: int) -> float:
    """Estimate all mixes of a model on so many machines of 8 A100; gives CPU seconds per mix."""
    model, cluster = sim.model(name, batch=batch), sim.cluster("dgx-a100", nodes=nodes)
    all_mixes = list(mixes(model, cluster.ranks, Counter()))
    began = time.process_time()
    estimator = Estimator(model, cluster, sim.rules.Adam(), "bf16")
    for mix in all_mixes:
        estimator.memory(mix)
        estimator.parts(mix)
    each = (time.process_time() - began) / len(all_mixes)
    print(f"{name} on {cluster.ranks} devices: {len(all_mixes)} mixes, {1e3 * each:.2f} ms each")
    return each


def searched(name: str, cluster: sim.Cluster, batch: int, target: float) -> None:
    """Search, and tell the CPU seconds."""
    began = time.process_time()
    found = sim.search(name, cluster, batch=batch)
    spent = time.process_time() - began
    print(f"search of {name} on {cluster.ranks} devices: {found.best.mix}; {len(found.choices)} simulated")
    print(f"  {spent:.1f} s; target: at most {target:.0f} s")


if __name__ == "__main__":
    worst = max(measure("gpt2-xl", 1, 64), measure("gpt3-175b", 8, 256), measure("gpt3-175b", 128, 1536))
    print(f"target: at most {1e3 * TARGET:.0f} ms each; here {1e3 * worst:.2f} ms at most")
    searched("gpt3-175b", sim.cluster("dgx-a100", nodes=16), 1536, 30.0)
    searched("mixtral-8x7b", sim.cluster("dgx-h100", nodes=4), 512, 15.0)
