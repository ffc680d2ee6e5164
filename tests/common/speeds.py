"""Clusters of devices of different speeds, and models whose times are known."""

from __future__ import annotations

import simulator as sim

TERA = 1e12


def machines(*teraflops: float) -> sim.Cluster:
    """Ranks on a free network, each with a speed of its own."""
    devices = tuple(sim.Device(f"{speed:g} TFLOP/s", flops=speed * TERA) for speed in teraflops)
    return sim.Cluster("mixed", len(devices), sim.cluster("ideal", ranks=len(devices)).wiring, devices=devices)


def model(blocks: int = 1, batch: int = 60, teraflop: float = 1.0, overhead: float = 0.0) -> sim.Model:
    """A sample takes one TFLOP forward and two backward, shared out over blocks."""
    pace = teraflop * TERA / blocks
    if overhead:
        works = [sim.Measured(((0.0, overhead), (1.0, overhead + seconds))) for seconds in (1.0, 2.0)]
        return sim.Model("measured", (sim.Block(12, *works),) * blocks, batch=batch)
    return sim.Model("work", (sim.Block(12, sim.Flops(pace), sim.Flops(2 * pace), 8.0),) * blocks, batch=batch)


def seconds(strategy: object, workload: sim.Model, cluster: sim.Cluster, steps: int = 1) -> float:
    return sim.simulate(strategy, workload, cluster, steps=steps).makespan  # type: ignore[arg-type]
